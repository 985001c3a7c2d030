package app

import (
	"errors"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/unitgen/unitgen/internal/app/apptest"
	"github.com/unitgen/unitgen/internal/balance"
)

// full is an app with every setting set.
func full() App {
	return App{
		Name: "shop", Command: []string{"/opt/shop/server", "a b", "", ";", "%i", "$HOME", "\n", "\xff"},
		Listen: []Listen{{Port: 3000}, {Addr: netip.MustParseAddr("127.0.0.1"), Port: 3001}, {Addr: netip.MustParseAddr("fe80::1%eth0"), Port: 80}},
		Kind:   KindListen, Path: PathSteer, Strategy: balance.LeastConnections,
		Environment:      []Assignment{{"A", ""}, {"B", "x=y z"}, {"C", "100%\n\"q\""}},
		EnvironmentFiles: []string{"/etc/a b", "-/etc/c"},
		WorkingDirectory: "/srv/shop ", User: "shop",
		Properties:   []Property{{"Type", "notify"}, {"ReadWritePaths", "/a /b"}, {"BindPaths", ""}},
		DrainTimeout: 90 * time.Second, Shutdown: ShutdownGraceful, StartTimeout: 1500 * time.Millisecond, IdleExit: 10 * time.Minute,
		SlowStart: time.Minute, Ready: ReadyNotify, Surge: "all", Parallel: 2, Soak: time.Second,
		Restart: Restart{
			Delay: 300 * time.Millisecond, Max: 3, Within: 90 * time.Second, StopExitCodes: []int{0, 78}, Watchdog: 30 * time.Second,
			MaxMemory: 1 << 30, MemoryReload: 1<<29 + 1, ReloadAt: "Mon 04:00", Watch: []string{"/srv/a b", "/srv/%i"},
		},
		Weights: []int{3, 1, 256}, Pin: true,
		SystemdVersion: 257,
	}
}

func TestSettingsText(t *testing.T) {
	got := Settings(App{Name: "app", Command: []string{"/bin/x", "a b"}, Listen: []Listen{{Port: 3000}}})
	want := "[X-Unitgen]\nVersion=1\nCommand=/bin/x \"a b\"\nListen=3000\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestSettingsRoundTrip(t *testing.T) {
	user := full()
	user.UserUnits, user.IdleExit, user.Agent = true, 0, Listen{Addr: netip.MustParseAddr("10.0.0.1"), Port: 9999}
	user.Metrics = Listen{Addr: netip.MustParseAddr("127.0.0.1"), Port: 9464}
	apps := []App{full(), user, {Name: "app", Command: []string{"/bin/x"}}}
	for _, v := range append(apptest.Vectors(), apptest.Generate(2, 500)...) {
		apps = append(apps, App{Name: "app", Command: append([]string{"/bin/x"}, v.Args...)})
	}
	for _, value := range append(apptest.Values(), apptest.GenerateValues(2, 500)...) {
		a := App{Name: "app", Command: []string{"/bin/x"}}
		if len(value) < maxArgument-2 {
			a.Environment = []Assignment{{"A", value}}
		}
		if isText(value) {
			apps = append(apps, a)
		}
	}
	for _, a := range apps {
		text := Settings(a)
		for _, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
			checkLine(t, line)
		}
		unit := "# x\n[Unit]\nDescription=x\n\n[Service]\nExecStart=/bin/x \\\n[X-Unitgen]\n\n" + text + "\n[Install]\nAlias=x\n"
		back, err := ParseSettings(a.Name, unit)
		if err != nil || !reflect.DeepEqual(back, a) {
			t.Errorf("%.300s\ncame back as %.300v, %v", text, back, err)
		}
	}
}

func TestParseSettingsByHand(t *testing.T) {
	a, err := ParseSettings("app", "[X-Unitgen]\r\n# mine\n; too\n Version = 1 \n Command =  /bin/x  'a' \nListen=*:80\nDrainTimeoutSec=90\n")
	want := App{Name: "app", Command: []string{"/bin/x", "a"}, Listen: []Listen{{Port: 80}}, DrainTimeout: 90 * time.Second}
	if err != nil || !reflect.DeepEqual(a, want) {
		t.Errorf("got %v, %v; want %v", a, err, want)
	}
}

func TestParseSettingsRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"Version=2":                   `line 3: Version=: "2" is a format`,
		"Colour=red":                  "line 3: Colour=: unknown key",
		"Kind=listen\nKind=listen":    "line 4: Kind is given twice",
		"Command=/bin/y":              "line 3: Command is given twice",
		"nonsense":                    `line 3: "nonsense" is not KEY=VALUE`,
		"User=":                       "line 3: User= has no value",
		`User=""`:                     "line 3: User=: the value is empty",
		"User=a b":                    "line 3: User= takes one word, got 2",
		`User="a`:                     "line 3: User=: split",
		"User=a\\\nb":                 "line 3: continued lines",
		"Listen=x":                    "line 3: Listen=: --listen= must be",
		"Kind=magic":                  `line 3: Kind=: unknown value "magic"`,
		"Path=magic":                  "line 3: Path=: unknown value",
		"Strategy=magic":              "line 3: Strategy=: unknown value",
		"Environment=1A=b":            "line 3: Environment=: --env= must have a name",
		"Property=x":                  "line 3: Property=: --property= must be KEY=VALUE",
		"DrainTimeoutSec=soon":        "line 3: DrainTimeoutSec=: parse time span",
		"IdleExitSec=0":               "line 3: IdleExitSec= must not be 0",
		"UserUnits=maybe":             "line 3: UserUnits=: ",
		"Pin=maybe":                   "line 3: Pin=: ",
		"Weights=1,0":                 "line 3: Weights=: --weights= must be numbers from 1 to 256",
		"Weights=1,,2":                "line 3: Weights=: --weights= must be numbers",
		"StopExitCodes=1,1":           "line 3: StopExitCodes=: --stop-exit-codes= has too many numbers, or one twice",
		"StopExitCodes=256":           "line 3: StopExitCodes=: --stop-exit-codes= must be numbers from 0 to 255",
		"MaxRestarts=0":               "line 3: MaxRestarts=: ",
		"MaxMemory=0":                 "line 3: MaxMemory=: it must not be 0",
		"MemoryReload=1.5G":           "line 3: MemoryReload=: parse size",
		"Watch=\"\"":                  "line 3: Watch=: the value is empty",
		"WatchdogSec=0":               "line 3: WatchdogSec= must not be 0",
		"SystemdVersion=new":          "line 3: SystemdVersion=: ",
		"[X-Unitgen]":                 "line 3: [X-Unitgen] is given twice",
		"[Install]\n[X-Unitgen]\nA=b": "line 4: [X-Unitgen] is given twice",
	} {
		_, err := ParseSettings("app", "[X-Unitgen]\nCommand=/bin/x\n"+text+"\nVersion=1\n")
		if err == nil || !strings.HasPrefix(err.Error(), "parse app.service: "+want) {
			t.Errorf("%q: got %v, want %s…", text, err, want)
		}
	}
	for text, want := range map[string]string{
		"":                            "no section [X-Unitgen]",
		"[Service]\nVersion=1\n":      "no section [X-Unitgen]",
		"[X-Unitgen]\nVersion=1\n":    "section [X-Unitgen] has no Command=",
		"[X-Unitgen]\nCommand=/bin/x": "section [X-Unitgen] has no Version=",
	} {
		_, err := ParseSettings("app", text)
		if err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, ErrNoSettings) != strings.HasPrefix(want, "no section") {
			t.Errorf("%q: got %v, want …%s", text, err, want)
		}
	}
}

// Sections that were written by a release are read by all later ones: nothing of them is lost. The
// file is what the first one wrote; it is never changed, and a new format gets a file beside it.
func TestParseSettingsOfReleases(t *testing.T) {
	text, err := os.ReadFile("testdata/settings-1.service")
	if err != nil {
		t.Fatal(err)
	}
	a, err := ParseSettings("shop", string(text))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "[X-Unitgen]\n")
	back := Settings(a)
	for line := range strings.Lines(section) {
		if !strings.Contains(back, "\n"+line) {
			t.Errorf("%q is lost, got\n%s", line, back)
		}
	}
	if err := a.Validate(); err != nil {
		t.Error(err)
	}
}

// Whatever is read is written so that it reads the same again.
func FuzzParseSettings(f *testing.F) {
	f.Add(Settings(full()))
	f.Add("[Service]\nExecStart=a\\\n[X-Unitgen]\n[X-Unitgen]\nVersion=1\nCommand=/bin/x\n")
	f.Add("[X-Unitgen]\nVersion=1\nCommand=\"\"\nProperty=A=\\x20b\nUserUnits=no\n")
	f.Fuzz(func(t *testing.T, text string) {
		a, err := ParseSettings("app", text)
		if err != nil || strings.IndexByte(text, 0) >= 0 {
			return
		}
		back, err := ParseSettings("app", Settings(a))
		if err != nil || !reflect.DeepEqual(back, a) {
			t.Errorf("%q\nread as %v\ncame back as %v, %v", text, a, back, err)
		}
	})
}
