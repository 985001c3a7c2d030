package app

import "github.com/unitgen/unitgen/internal/program"

// graceful maps the names of server programs to the stop signals on which they shut down
// gracefully. Only tested servers are listed: for a missing server only time is lost, for a wrong
// entry requests are lost.
var graceful = map[string]string{"gunicorn": "SIGTERM", "uvicorn": "SIGTERM", "nginx": "SIGQUIT"}

// ShutdownOrDefault returns what the program does on its stop signal: the setting, or what is known
// of the server that the command names. It is empty if nothing is known.
func (a App) ShutdownOrDefault() Shutdown {
	if a.Shutdown != "" || a.Kind == KindNode {
		return a.Shutdown
	}
	signal, known := graceful[program.Server(a.Command)]
	if given, ok := a.Property("KillSignal"); known && (!ok || given == signal) {
		return ShutdownGraceful
	}
	return ""
}

// KillSignal is the stop signal on which a known server shuts down gracefully; empty for SIGTERM,
// which systemd sends, and where a property or --shutdown=quick says otherwise.
func (a App) KillSignal() string {
	signal := graceful[program.Server(a.Command)]
	if _, given := a.Property("KillSignal"); given || signal == "SIGTERM" || a.ShutdownOrDefault() != ShutdownGraceful {
		return ""
	}
	return signal
}
