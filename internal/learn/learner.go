package learn

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/bindnotify"
	"github.com/unitgen/unitgen/internal/explain"
	"github.com/unitgen/unitgen/internal/fault"
	"github.com/unitgen/unitgen/internal/live"
	"github.com/unitgen/unitgen/templates"
)

// Guess stands in for the address of an app while it is not known: nothing is opened there.
const Guess = "127.0.0.1:65535"

// familyLimit is how long a program may take to show its address family. One that takes its socket
// from systemd may wait for that, and one that is slower than this is served by both families.
const familyLimit = 10 * time.Second

// closeTimeout is more than the program has to end (TimeoutStopSec= of its unit).
const closeTimeout = 15 * time.Second

// Learner finds out what the options of a new app leave open, by a run of its program. The app's
// bind(2) must be answered (app.App.BindAnswered).
type Learner struct {
	Manager *live.Manager
	Say     func(format string, args ...any) // tells the user what was found
	Retype  func(options string) string      // the user's command line with further options
}

// Address returns the values of --listen= of an app of which nothing is known; a has Guess. That
// the program does not listen, or on more than one port, is an error that says what to do.
func (l Learner) Address(ctx context.Context, a app.App) (listen []string, err error) {
	t, err := l.trial(a, a.StartTimeoutOrDefault(), true)
	if err != nil {
		return nil, err
	}
	l.Say("Starting the program once, to see where it listens.")
	began := l.Manager.Now()
	defer func() { err = errors.Join(err, t.end(ctx)) }()
	state, err := t.Run(ctx)
	switch {
	case errors.Is(err, ErrEnded), errors.Is(err, ErrSilent):
		return nil, l.why(ctx, a, t, state, began, err)
	case err != nil:
		return nil, err
	}
	return l.address(a, state)
}

// Family returns the values of --listen= of an app with one port of both families whose program has
// one of them, or each by itself; nil: those that a has.
func (l Learner) Family(ctx context.Context, a app.App) (listen []string, err error) {
	bare := len(a.Listen) == 1 && !a.Listen[0].IsUnix() && !a.Listen[0].Addr.IsValid()
	if !a.BindAnswered() || !bare || a.ReadyOrDefault() == app.ReadyNotify {
		return nil, nil
	}
	t, err := l.trial(a, min(familyLimit, a.StartTimeoutOrDefault()), false)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.end(ctx)) }()
	state, err := t.Run(ctx)
	if err != nil && !errors.Is(err, ErrEnded) && !errors.Is(err, ErrSilent) {
		return nil, err
	}
	if errors.Is(err, ErrSilent) && len(Ports(state)) == 0 {
		l.Say("Note: the program opened no port within %s. If it takes its socket from systemd, --kind=listen starts it at once.",
			app.FormatTimeSpan(t.Limit))
	}
	return l.family(a, state), nil // what failed here the start will tell
}

// trial is a run of the program of a. guessed says that a has Guess, which the program must not
// learn of.
func (l Learner) trial(a app.App, limit time.Duration, guessed bool) (Trial, error) {
	m := l.Manager
	unit, err := templates.Learn(a, m.Site.Paths(a), os.DirFS(m.Site.Root+"/etc/unitgen/templates"), guessed)
	manager := "system"
	if m.Site.UserUnits {
		manager = "user"
	}
	return Trial{Conn: m.Conn, Endpoint: m.Endpoint, Unit: unit.Name, Text: unit.Text, Limit: limit,
		Dir: m.Site.Root + filepath.Join(m.RuntimeDir(), "systemd", manager)}, err
}

// end closes the trial also when the user interrupts: the program must not stay.
func (t Trial) end(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	return t.Close(ctx)
}

// address is where a program serves of which nothing was known.
func (l Learner) address(a app.App, state bindnotify.State) ([]string, error) {
	ports := Ports(state)
	if len(ports) > 1 {
		var words []string
		for _, port := range ports {
			words = append(words, live.ListenWords(Listen(state, port)))
		}
		return nil, fault.Input(l.Retype("--listen="+Listen(state, ports[0])[0].String()),
			"the program listens on more than one port, %s: --listen= must say which is the app's", strings.Join(words, " and "))
	}
	learned := Listen(state, ports[0])
	if a.UserUnits && ports[0] < 1024 {
		return nil, fault.Input("", "the program listens on port %d, which a user's units cannot open", ports[0])
	}
	l.Say("The program listens on %s: %s is served there.", live.ListenWords(learned), a.Name)
	return values(learned), nil
}

// family is the address of an app with a port of both families whose program has one of them, or
// each by itself.
func (l Learner) family(a app.App, state bindnotify.State) []string {
	port := a.Listen[0].Port
	if a.ProgramPort != 0 {
		port = uint16(a.ProgramPort)
	}
	asked := Listen(state, port)
	is4 := func(a app.Listen) bool { return a.Addr.Is4() }
	six := slices.ContainsFunc(asked, func(a app.Listen) bool { return !is4(a) })
	if len(asked) > 0 && !slices.ContainsFunc(asked, func(a app.Listen) bool { return !a.Addr.IsLoopback() }) {
		l.Say("Note: the program asks for %s, and --listen=%s opens it to the network; to keep it on this machine: unitgen %s --listen=%s",
			live.ListenWords(asked), a.Listen[0], a.Name, asked[0])
	}
	if !slices.ContainsFunc(asked, is4) {
		return nil
	}
	learned := []app.Listen{{Addr: netip.IPv4Unspecified(), Port: a.Listen[0].Port}}
	words := "IPv4"
	if six {
		learned = append(learned, app.Listen{Addr: netip.IPv6Unspecified(), Port: a.Listen[0].Port})
		words = "IPv4 and IPv6 apart"
	}
	l.Say("The program listens by %s: %s is served at %s.", words, a.Name, live.ListenWords(learned))
	return values(learned)
}

func values(listen []app.Listen) (values []string) {
	for _, a := range listen {
		values = append(values, a.String())
	}
	return values
}

// why says why the program of a did not show where it listens.
func (l Learner) why(ctx context.Context, a app.App, t Trial, state bindnotify.State, began time.Time, err error) error {
	logs := "journalctl " + l.Manager.UserOption() + "-e -u " + t.Instance()
	if what, hint := state.Problem(string(a.Name), nil); what != "" {
		return fault.With(errors.New(what), hint)
	}
	if errors.Is(err, ErrEnded) {
		q := l.Manager.Question(a.Name)
		q.Since = began
		q.Trial = &explain.Trial{Unit: t.Instance(), App: a, Retype: l.Retype}
		if r, e := q.Instance(ctx, 1); e == nil && r.What != "" {
			return fault.With(fmt.Errorf("%s did not listen: %s", a.Name, r), r.Hint)
		}
		return fault.With(fmt.Errorf("%w; a program that goes to the background needs its option to stay in the foreground", err), logs)
	}
	limit := app.FormatTimeSpan(t.Limit)
	if UDP(state) {
		return fault.With(fmt.Errorf("the program has a UDP port and listened on no TCP port within %s: unitgen balances TCP", limit), logs)
	}
	return fault.With(fmt.Errorf("the program listened on no TCP port within %s", limit), l.Retype("--start-timeout="+app.FormatTimeSpan(3*t.Limit)))
}
