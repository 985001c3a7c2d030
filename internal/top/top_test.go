package top

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"

	"github.com/unitgen/unitgen/internal/fault"
	"github.com/unitgen/unitgen/internal/rollout/tally"
	"github.com/unitgen/unitgen/internal/survey"
	"github.com/unitgen/unitgen/internal/view"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// picture is the n-th look, one second after the other: api with two instances, the second of which
// is down, and web with three.
func picture(n int) Picture {
	at := noon.Add(time.Duration(n) * time.Second)
	began := noon.Add(-time.Minute)
	instance := func(number int, cpu float64, memory, open int) survey.Instance {
		return survey.Instance{Number: number, State: "up", Started: began, Open: open, Steered: uint64(10 * n),
			Usage: survey.Usage{CPU: cpu * float64(60+n), HasCPU: true, Memory: float64(memory) * (1 << 20), HasMemory: true}}
	}
	api := survey.App{Name: "api", State: "active", Answered: true, Opened: began, Instances: []survey.Instance{
		instance(1, 0.25, 10, n), {Number: 2, State: "down", Open: -1, Restarts: 7}}}
	web := survey.App{Name: "web", State: "active", Answered: true, Opened: began, Instances: []survey.Instance{
		instance(1, 1, 20, 8), instance(2, 0.5, 40, 8), instance(3, 0, 40, 0)}}
	return Picture{Look: &survey.Look{At: at, Apps: []survey.App{api, web}}}
}

// fill makes the rows of a picture.
func (p Picture) fill(before *survey.Look) Picture {
	for _, a := range p.Look.Apps {
		row := &view.App{App: a.Name, Instances: len(a.Instances)}
		row.Fill(p.Look, before)
		p.Apps = append(p.Apps, row)
	}
	return p
}

// played is a screen in a world that a test makes.
type played struct {
	*Model
	t    *testing.T
	done []Action
	tell func(func(string))
	err  error
}

func play(t *testing.T, width, height int, change func(*Options)) *played {
	o := Options{Every: time.Second, Sort: "name", CPUs: 2}
	if change != nil {
		change(&o)
	}
	p := &played{t: t}
	p.Model = New(NewBackground(t.Context()), World{
		Now: func() time.Time { return noon },
		Do: func(_ context.Context, a Action, tell func(string)) error {
			p.done = append(p.done, a)
			if p.tell != nil {
				p.tell(tell)
			}
			return p.err
		},
	}, o)
	p.Update(tea.WindowSizeMsg{Width: width, Height: height})
	return p
}

// sees shows the looks up to the n-th.
func (p *played) sees(n int) {
	for i := range n {
		p.Update(ticked(noon.Add(time.Duration(i+1) * time.Second)))
		p.Update(looked{picture: picture(i + 1).fill(p.look)})
	}
}

var special = map[string]tea.KeyPressMsg{
	"down": {Code: tea.KeyDown}, "up": {Code: tea.KeyUp}, "left": {Code: tea.KeyLeft}, "right": {Code: tea.KeyRight}, "enter": {Code: tea.KeyEnter},
	"esc": {Code: tea.KeyEscape}, "end": {Code: tea.KeyEnd}, "home": {Code: tea.KeyHome}, "pgdown": {Code: tea.KeyPgDown},
	"backspace": {Code: tea.KeyBackspace}, "ctrl+c": {Code: 'c', Mod: tea.ModCtrl},
}

// types presses keys, and does what follows from them until nothing does. It returns whether the
// screen ends.
func (p *played) types(keys ...string) (quits bool) {
	p.t.Helper()
	for _, key := range keys {
		msg, ok := special[key]
		if !ok {
			msg = tea.KeyPressMsg{Code: []rune(key)[0], Text: key}
		}
		_, cmd := p.Update(msg)
		quits = p.run(cmd) || quits
	}
	return quits
}

func (p *played) run(cmd tea.Cmd) (quits bool) {
	if cmd == nil {
		return false
	}
	switch msg := cmd().(type) {
	case nil:
		return false
	case tea.QuitMsg:
		return true
	case tea.BatchMsg:
		for _, c := range slices.Backward(msg) { // what carries out an action comes behind what waits for it
			quits = p.run(c) || quits
		}
		return quits
	default:
		_, next := p.Update(msg)
		return p.run(next)
	}
}

// frame is the screen without blanks at the ends of lines.
func (p *played) frame() string {
	var b strings.Builder
	for line := range strings.Lines(p.View().Content + "\n") {
		b.WriteString(strings.TrimRight(strings.NewReplacer(string(chosenStyle), "", string(view.Plain), "").Replace(line), " \n") + "\n")
	}
	return b.String()
}

func (p *played) shows(want string) {
	p.t.Helper()
	if got := p.frame(); got != want {
		p.t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func (p *played) says(want string) {
	p.t.Helper()
	if !strings.Contains(p.frame(), want) {
		p.t.Errorf("%q is missing in\n%s", want, p.frame())
	}
}

func TestFrames(t *testing.T) {
	p := play(t, 80, 8, nil)
	p.shows(`Looking at the apps …                                                   12:00:00
  APP      STATE         UP   CPU          MEMORY        CONNS          CONNS/S





Enter:open r:reload R:restart +/-:scale l:logs s:sort /:filter ?:help q:quit
`)
	p.sees(4)
	p.types("enter")
	p.shows(`2 apps, 4/5 instances up, CPU 175%, memory 110M, 20 connections         12:00:04
  APP      STATE         UP   CPU          MEMORY        CONNS          CONNS/S
> api      active       1/2   25%     ▁▁▁▁    10M ▋          4     ▁▁▂▂      10
    @1     up                 25%     ▂▂▂▂    10M ██████     4     ▂▄▆█      10
    @2     down                                                               0
  web      active       3/3  150%     ▆▆▆▆   100M ██████    16     ████      30

Enter:open r:reload R:restart +/-:scale l:logs s:sort /:filter ?:help q:quit
`)
	p.Update(tea.WindowSizeMsg{Width: 40, Height: 7})
	p.shows(`2 apps, 4/5 instances up, CPU … 12:00:04
  APP      STATE        CPU MEMORY CONNS
> api      active       25%    10M     4
    @1     up           25%    10M     4
    @2     down

?:help q:quit
`)
	p.types("end") // scrolls
	p.shows(`2 apps, 4/5 instances up, CPU … 12:00:04
  APP      STATE        CPU MEMORY CONNS
    @1     up           25%    10M     4
    @2     down
> web      active      150%   100M    16

?:help q:quit
`)
	p.Update(tea.WindowSizeMsg{Width: 12, Height: 2})
	p.shows("> web\n\n")
	p.types("home")
	p.shows("> api\n\n")
	p.Update(tea.WindowSizeMsg{Width: 1, Height: 1})
	p.shows("…\n")
	p.Update(tea.WindowSizeMsg{Width: 0, Height: 0})
	p.View()
	p.Update(tea.WindowSizeMsg{Width: 130, Height: 7})
	p.types("left")
	p.shows(`2 apps, 4/5 instances up, CPU 175%, memory 110M, 20 connections                                                           12:00:04
  APP      STATE         UP   CPU                             MEMORY        CONNS                      CONNS/S RESTARTS    UPTIME
> api      active       1/2   25% ▊                      ▁▁▁▁    10M ▋          4                 ▁▁▂▂      10        7   1min 4s
  web      active       3/3  150% ████▌                  ▆▆▆▆   100M ██████    16                 ████      30        0   1min 4s


Enter:open r:reload R:restart +/-:scale l:logs s:sort /:filter ?:help q:quit
`)
}

// No line is wider than the screen, and there are as many as it has, whatever its size.
func TestEverySize(t *testing.T) {
	p := play(t, 80, 24, nil)
	p.sees(3)
	p.types("o")
	p.said = message{strings.Repeat("much to say ", 40), true}
	for width := 0; width < 130; width += 1 + width/8 {
		for height := range 14 {
			p.Update(tea.WindowSizeMsg{Width: width, Height: height})
			for _, help := range []bool{false, true} {
				p.help = help
				lines := strings.Split(strings.NewReplacer(string(chosenStyle), "", string(view.Plain), "").Replace(p.View().Content), "\n")
				if len(lines) > max(height, 1) {
					t.Fatalf("%d x %d: %d lines", width, height, len(lines))
				}
				for _, line := range lines {
					if utf8.RuneCountInString(line) > width {
						t.Fatalf("%d x %d: %q", width, height, line)
					}
				}
			}
		}
	}
}

// Without UTF-8 the graphs are letters. Only states and failures have colours, and none do without
// colour.
func TestASCIIAndColours(t *testing.T) {
	p := play(t, 80, 6, func(o *Options) { o.ASCII, o.Colour = true, true })
	p.sees(4)
	want := "> api      active       1/2   25%     ____    10M #          4     __..      10"
	if lines := strings.Split(p.frame(), "\n"); lines[2] != want {
		t.Errorf("got\n%s\nwant\n%s", lines[2], want)
	}
	if content := p.View().Content; strings.Count(content, string(view.Green)) != 1 || strings.Count(content, string(chosenStyle)) != 1 {
		t.Errorf("colours: %q", content)
	}
	p.options.Colour = false
	if content := p.View().Content; strings.Contains(content, string(view.Green)) {
		t.Errorf("colours: %q", content)
	}
}

// What ends processes asks once, and any key but y is no.
func TestActions(t *testing.T) {
	p := play(t, 80, 24, nil)
	p.sees(1)
	p.tell = func(tell func(string)) { tell("web@1: draining"); tell("web@1: ready") }
	api, web := Target{App: "api"}, Target{App: "web"}
	for _, test := range []struct {
		keys   []string
		says   string
		action *Action
	}{
		{[]string{"r"}, "Reload api: new code, one instance after another? [y/N]", nil},
		{[]string{"n"}, "", nil},
		{[]string{"r", "y"}, "reload api: done", &Action{Verb: Reload, Target: api}},
		{[]string{"+"}, "scale api +1: done", &Action{Scale, api, "+1"}},
		{[]string{"down", "-"}, "Stop one instance of web? [y/N]", nil},
		{[]string{"y"}, "scale web -1: done", &Action{Scale, web, "-1"}},
		{[]string{"enter", "down", "down", "R"}, "Restart web@2? [y/N]", nil},
		{[]string{"Y"}, "restart web@2: done", &Action{Verb: Restart, Target: Target{"web", 2}}},
		{[]string{"left", "R", "y"}, "restart web: done", &Action{Verb: Restart, Target: web}},
		{[]string{"R", "q"}, "", nil}, // it only answers no
	} {
		p.done = nil
		if p.types(test.keys...) {
			t.Errorf("%q: it quits", test.keys)
		}
		p.says(test.says)
		if test.action == nil && p.done != nil || test.action != nil && !slices.Equal(p.done, []Action{*test.action}) {
			t.Errorf("%q: did %v, want %v", test.keys, p.done, test.action)
		}
	}
	p.err = errors.Join(fault.With(errors.New("web@1 did not get ready:\x1b[31m exit status 3"), "unitgen logs web"), errors.New("and more"))
	p.types("r", "y")
	p.says(`reload web: web@1 did not get ready:\x1b[31m exit status 3; and more`)
	p.says("(unitgen\nlogs web)")
	if !p.types("q") || !p.types("ctrl+c") {
		t.Error("q and Ctrl-C quit")
	}
}

// One action at a time is under way on an app, its steps are shown, and quitting asks meanwhile.
func TestUnderWay(t *testing.T) {
	p := play(t, 80, 24, nil)
	p.sees(1)
	p.types("r")
	_, cmd := p.Update(tea.KeyPressMsg{Code: 'y', Text: "y"})
	p.Update(step{action: Action{Verb: Reload, Target: Target{App: "api"}}, text: "api@1: draining, 3 connections left"})
	p.says("reload api: api@1: draining, 3 connections left")
	p.types("+")
	p.says("reload api is under way.")
	if p.types("q") {
		t.Error("it quits without a question")
	}
	p.says("Quit? [y/N]")
	if p.types("n") || !p.types("q", "y") {
		t.Error("y quits, n does not")
	}
	if !p.run(cmd) {
		t.Error("it does not quit when the action has ended")
	}
}

func TestFilterAndSort(t *testing.T) {
	p := play(t, 80, 24, nil)
	p.sees(2)
	p.types("/", "w", "x", "backspace")
	p.says("Show only: w_")
	if p.types("q", "backspace", "enter"); strings.Contains(p.frame(), "api") {
		t.Errorf("the filter lets through\n%s", p.frame())
	}
	p.says(`"w": 1 app, 3/3 instances up, CPU 150%, memory 100M, 16 connections`)
	p.types("/", "z", "enter")
	p.says(`No app has "z" in its name or state; Esc shows all.`)
	if p.types("r", "enter", "l"); p.asks != nil {
		t.Error("nothing is chosen, and something is asked")
	}
	p.types("esc", "s", "s")
	p.says("Sorted by cpu.")
	if f := p.frame(); strings.Index(f, " web ") > strings.Index(f, " api ") {
		t.Errorf("by cpu:\n%s", f)
	}
	p.types("S", "S", "S")
	p.says("Sorted by uptime.")
	p.types("?")
	p.says("follow the journal; Ctrl-C comes back")
	p.types("q")
	p.says("api")
}

// What is wrong is said, and the screen goes on.
func TestTrouble(t *testing.T) {
	p := play(t, 100, 24, nil)
	p.Update(looked{err: errors.New("dial bus: no such file")})
	p.says("look: dial bus: no such file")
	p.sees(1)
	p.says("2 apps")
	p.Update(ticked(noon.Add(2 * time.Second))) // begins a look
	p.Update(ticked(noon.Add(9 * time.Second)))
	p.says("No answer from systemd or a balancer for 7s.")
	p.Update(looked{err: errors.New("deadline exceeded")})
	p.says("As of 12:00:01. look: deadline exceeded")
	p.types("down")
	p.says("> web")

	next := picture(2)
	next.Look.Apps[0].Silent, next.Look.Apps[0].Answered = errors.New("i/o timeout\x1b]0;x\a"), false
	next.Look.Apps[1].State, next.Look.Apps[1].Line = "reloading", "rollout 1/3: web@2 drains\x1b[2J; 3/3 instances up"
	next.Look.Apps[1].Rollouts = tally.Tally{Running: noon.UnixMicro()}
	p.Update(looked{picture: next.fill(p.look)})
	p.says(`its balancer does not answer: i/o timeout\x1b]0;x\x07`)
	p.says(`reload: 1/3: web@2 drains\x1b[2J for 2s`)
	if regexp.MustCompile(`[\x00-\x09\x0b-\x1f]`).MatchString(p.frame()) {
		t.Errorf("control characters: %q", p.frame())
	}
	next = picture(3)
	next.Look.Apps[0].Silent = fs.ErrPermission
	p.Update(looked{picture: next.fill(p.look)})
	p.says("connections: only root may ask")
	if strings.Contains(p.frame(), "does not answer") {
		t.Errorf("who may not ask reads\n%s", p.frame())
	}
	p.Update(looked{picture: Picture{Look: &survey.Look{At: noon}}})
	p.says("There are no apps. Make one of a program with: unitgen APP")
	p.Update(followed{errors.New("journalctl: not found")})
	p.says("logs: journalctl: not found")
}

// A row that has gone leaves the choice to its app, and then to the first row.
func TestChosenRowGoes(t *testing.T) {
	p := play(t, 80, 24, nil)
	p.sees(1)
	p.types("down", "right", "down", "down", "down")
	p.says(">   @3")
	next := picture(2)
	next.Look.Apps[1].Instances = next.Look.Apps[1].Instances[:2]
	p.Update(looked{picture: next.fill(p.look)})
	p.says("> web")
	next = picture(3)
	next.Look.Apps = next.Look.Apps[:1]
	p.Update(looked{picture: next.fill(p.look)})
	p.says("> api")
	if _, kept := p.trails[Target{App: "web"}]; kept {
		t.Error("the trail of an app that has gone is kept")
	}
}

// A trail is bounded.
func TestTrail(t *testing.T) {
	var tr *trail
	for i := range 3 * remembered {
		x := float64(i)
		tr = tr.and(view.Figures{CPUPercent: &x})
	}
	if len(tr.cpu) != remembered || tr.cpu[remembered-1] != 3*remembered-1 || tr.connections[0] != -1 {
		t.Errorf("%v", tr)
	}
}

// The screen ends with its context, and so does what it has begun.
func TestRun(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var out strings.Builder
	in, keys := io.Pipe()
	defer keys.Close()
	ended := false
	err := Run(ctx, in, &out, World{Now: time.Now, Look: func(ctx context.Context, _ *survey.Look) (Picture, error) {
		cancel()
		<-ctx.Done()
		ended = true
		return Picture{}, ctx.Err()
	}}, Options{Every: time.Hour, Sort: "name"})
	if !errors.Is(err, errTerminated) || !ended {
		t.Errorf("%v, ended %v", err, ended)
	}
}
