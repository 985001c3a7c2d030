package explain

import (
	"context"
	"fmt"

	"github.com/unitgen/unitgen/internal/app"
)

// Socket returns why the app's public listener is not open; the zero Reason if it is open, or
// nobody has tried to open it.
func (q Question) Socket(ctx context.Context) (Reason, error) {
	state, err := q.Conn.Unit(ctx, q.App.Socket())
	if err != nil || state.ActiveState != "failed" {
		return Reason{}, err
	}
	settings, err := ReadApp(ctx, q.Conn, q.App)
	if err != nil {
		return Reason{}, err
	}
	for _, l := range settings.Listen {
		if l.IsUnix() {
			continue
		}
		if who := q.Holder(ctx, int(l.Port)); who != "" {
			return q.portTaken(l, who), nil
		}
	}
	return Reason{What: fmt.Sprintf("systemd could not open %s (result %s)", q.App.Socket(), state.Result),
		Hint: "journalctl -e -u " + q.App.Socket()}, nil
}

func (q Question) portTaken(l app.Listen, who string) Reason {
	return Reason{What: fmt.Sprintf("port %d is held by %s", l.Port, who), Hint: fmt.Sprintf("ss -ltnp 'sport = :%d'", l.Port)}
}
