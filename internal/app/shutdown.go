package app

import "github.com/unitgen/unitgen/internal/program"

// graceful are the stop signals on which servers shut down gracefully, by the name of their program. Only what was tried
// stands here: of a server that is missing nothing is lost but time, of one that cuts requests off they are.
var graceful = map[string]string{"gunicorn": "SIGTERM", "uvicorn": "SIGTERM", "nginx": "SIGQUIT"}

// ShutdownOrDefault is what the program does on its stop signal: what was said, else what is known of the server that the
// command names. It is empty where nothing is known.
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

// KillSignal is the stop signal on which a known server shuts down gracefully; empty for SIGTERM, which systemd sends, and
// where a property or --shutdown=quick says otherwise.
func (a App) KillSignal() string {
	signal := graceful[program.Server(a.Command)]
	if _, given := a.Property("KillSignal"); given || signal == "SIGTERM" || a.ShutdownOrDefault() != ShutdownGraceful {
		return ""
	}
	return signal
}
