package app

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unitgen/unitgen/internal/balance"
)

// valid is the least that an app needs.
func valid() App {
	return App{Name: "app", Command: []string{"/opt/app/server"}, Listen: []Listen{{Port: 3000}}, SystemdVersion: 257}
}

func TestValidate(t *testing.T) {
	for name, change := range map[string]func(*App){
		"minimal":           func(a *App) {},
		"full":              func(a *App) { *a = full() },
		"zero version":      func(a *App) { a.SystemdVersion = 0 },
		"first":             func(a *App) { a.Strategy = balance.First },
		"auto":              func(a *App) { a.Path, a.Kind = PathAuto, KindListen },
		"user units":        func(a *App) { a.UserUnits = true },
		"numeric user":      func(a *App) { a.User = "1000" },
		"notify-reload":     func(a *App) { a.Properties = []Property{{"Type", "notify-reload"}} },
		"private users":     func(a *App) { a.Properties = []Property{{"PrivateUsers", "yes"}} },
		"OOM policy":        func(a *App) { a.Properties = []Property{{"OOMPolicy", "kill"}} },
		"specifier":         func(a *App) { a.Properties = []Property{{"Environment", "X=%i"}, {"ExecStartPre", "/bin/true"}} },
		"final blackslash":  func(a *App) { a.Properties = []Property{{"Environment", `X=a\\`}} },
		"no remain":         func(a *App) { a.Properties = []Property{{"RemainAfterExit", "no"}} },
		"another ExecStop":  func(a *App) { a.Properties = []Property{{"ExecStop", "/bin/true"}} },
		"blank in dir":      func(a *App) { a.WorkingDirectory = "/srv/my app " },
		"unix socket":       func(a *App) { a.Listen = []Listen{{Unix: "/run/x"}} },
		"source-hash":       func(a *App) { a.Strategy = balance.SourceHash },
		"handoff":           func(a *App) { a.Kind, a.UserUnits, a.Strategy = KindHandoff, true, balance.LeastConnections },
		"root":              func(a *App) { a.WorkingDirectory = "/" },
		"optional env file": func(a *App) { a.EnvironmentFiles = []string{"-/etc/x"} },
	} {
		a := valid()
		change(&a)
		if err := a.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestValidateRefuses(t *testing.T) {
	for want, change := range map[string]func(*App){
		"the app's name must not be empty":                       func(a *App) { a.Name = "" },
		"the command is missing":                                 func(a *App) { a.Command = nil },
		"--listen= is missing":                                   func(a *App) { a.Listen = nil },
		"--listen=/run/x is not possible on the steer path":      func(a *App) { a.Path, a.Listen = PathSteer, []Listen{{Unix: "/run/x"}} },
		"--max-connections= is not possible on the steer path":   func(a *App) { a.MaxConnections = 9 },
		"--max-connections= must be between 1 and":               func(a *App) { a.MaxConnections, a.Path = -1, PathHandoff },
		"--program-port= must be between 1 and 65535, got 65536": func(a *App) { a.Kind, a.ProgramPort = KindNode, 65536 },
		"--program-port= is for programs that open their port":   func(a *App) { a.Kind, a.ProgramPort = KindListen, 3000 },
		"--kind=bind does not go with --listen=/run/app.sock": func(a *App) {
			a.Kind, a.Listen = KindBind, []Listen{{Unix: "/run/app.sock"}}
		},
		"--program-port= goes with one port of --listen=, got 80 and others": func(a *App) {
			a.Kind, a.ProgramPort, a.Listen = KindNode, 3000, []Listen{{Port: 80}, {Port: 81}}
		},
		"--kind=handoff does not go with --path=steer":            func(a *App) { a.Path, a.Kind = PathSteer, KindHandoff },
		"--listen=@x has no path, which Node.js programs need":    func(a *App) { a.Kind, a.Listen = KindNode, []Listen{{Unix: "@x"}} },
		"--strategy=source-hash does not go with --listen=/run/x": func(a *App) { a.Strategy, a.Listen = balance.SourceHash, []Listen{{Unix: "/run/x"}} },
		"--listen=/run/x takes the handoff path, on which gunicorn would never get a connection": func(a *App) {
			a.Command, a.Listen = []string{"/venv/bin/gunicorn", "app:app"}, []Listen{{Unix: "/run/x"}}
		},
		"--path=handoff takes the handoff path, on which puma would never": func(a *App) {
			a.Command, a.Path = []string{"/usr/bin/puma"}, PathHandoff
		},
		"--listen=0 has no port":                                 func(a *App) { a.Listen = []Listen{{}} },
		"--listen=443 is a port below 1024":                      func(a *App) { a.UserUnits, a.Listen = true, []Listen{{Port: 443}} },
		"--listen= names 3000 twice":                             func(a *App) { a.Listen = append(a.Listen, a.Listen...) },
		"--kind=port is not available in this version":           func(a *App) { a.Kind = KindPort },
		`--kind= must be bind, listen, node or handoff, got "x"`: func(a *App) { a.Kind = "x" },
		"--path=proxy is not available in this version":          func(a *App) { a.Path = PathProxy },
		`--path= must be auto, steer or handoff, got "x"`:        func(a *App) { a.Path = "x" },
		"--strategy=source-hash is not possible on the steer path": func(a *App) {
			a.Kind, a.Path, a.Strategy, a.UserUnits = KindNode, PathSteer, balance.SourceHash, true
		},
		"--strategy=source-hash needs CAP_BPF":                                                 func(a *App) { a.Strategy, a.UserUnits = balance.SourceHash, true },
		"--strategy=random-two needs CAP_NET_ADMIN":                                            func(a *App) { a.Strategy, a.UserUnits = balance.RandomTwo, true },
		"--strategy=least-connections needs CAP_NET_ADMIN":                                     func(a *App) { a.Strategy, a.UserUnits = balance.LeastConnections, true },
		`--strategy= must be round-robin, least-connections, random-two, source-hash or first`: func(a *App) { a.Strategy = "x" },
		`--env= must have a name of letters`:                                                   func(a *App) { a.Environment = []Assignment{{"1A", ""}} },
		"--env=A= must be valid UTF-8":                                                         func(a *App) { a.Environment = []Assignment{{"A", "\xff"}} },
		"--env=B= must be valid UTF-8":                                                         func(a *App) { a.Environment = []Assignment{{"B", "\uffff"}} },
		"--env=A= must not contain NUL":                                                        func(a *App) { a.Environment = []Assignment{{"A", "\x00"}} },
		"--env=A= must have at most 131071 bytes with its name":                                func(a *App) { a.Environment = []Assignment{{"A", strings.Repeat("x", 131070)}} },
		"--env=LISTEN_FDS= is set by systemd":                                                  func(a *App) { a.Environment = []Assignment{{"LISTEN_FDS", "1"}} },
		"--env-file= must be an absolute path":                                                 func(a *App) { a.EnvironmentFiles = []string{"x"} },
		"--env-file= must be valid UTF-8":                                                      func(a *App) { a.EnvironmentFiles = []string{"-/\xff"} },
		"--working-directory= must be an absolute path":                                        func(a *App) { a.WorkingDirectory = "~" },
		"--working-directory= must not contain a line break":                                   func(a *App) { a.WorkingDirectory = "/a\rb" },
		`--working-directory= must be written without`:                                         func(a *App) { a.WorkingDirectory = "/a/" },
		"--user= must be the name or number":                                                   func(a *App) { a.User = "%i" },
		"--user= is not possible with --user-units":                                            func(a *App) { a.User, a.UserUnits = "x", true },
		"--property=DynamicUser=no needs --user=":                                              func(a *App) { a.Properties = []Property{{"DynamicUser", "no"}} },
		"--user-per-instance is not possible with --user-units":                                func(a *App) { a.UserPerInstance, a.UserUnits = true, true },
		"--user-per-instance does not go with --user=x":                                        func(a *App) { a.UserPerInstance, a.User = true, "x" },
		"--user-per-instance does not go with --property=StateDirectory=a/%i b:":               func(a *App) { a.UserPerInstance, a.Properties = true, []Property{{"StateDirectory", "a/%i b"}} },
		"--user-per-instance does not go with --property=CacheDirectory=":                      func(a *App) { a.UserPerInstance, a.Properties = true, []Property{{"CacheDirectory", "a"}} },
		"--user-per-instance does not go with --property=LogsDirectory=":                       func(a *App) { a.UserPerInstance, a.Properties = true, []Property{{"LogsDirectory", "a"}} },
		"--user-per-instance does not go with --property=RuntimeDirectory=":                    func(a *App) { a.UserPerInstance, a.Properties = true, []Property{{"RuntimeDirectory", "a"}} },
		"--drain-timeout= must be between 100ms and 1d, got 1ms":                               func(a *App) { a.DrainTimeout = time.Millisecond },
		"--start-timeout= must be between":                                                     func(a *App) { a.StartTimeout = -1 },
		"--idle-exit= must be between":                                                         func(a *App) { a.IdleExit = 25 * time.Hour },
		"--systemd-version= must be at least 252, got 247":                                     func(a *App) { a.SystemdVersion = 247 },
		"--shutdown= must be graceful or quick":                                                func(a *App) { a.Shutdown = "x" },
		"--shutdown= does not go with --kind=node":                                             func(a *App) { a.Shutdown, a.Kind = ShutdownQuick, KindNode },
		"--restart-delay= must be between 100ms and 1d, got 1ms":                               func(a *App) { a.Restart.Delay = time.Millisecond },
		"--max-restarts= must be between 1 and":                                                func(a *App) { a.Restart.Max = -1 },
		"--within= needs --max-restarts=":                                                      func(a *App) { a.Restart.Within = time.Minute },
		"--stop-exit-codes= must be numbers from 0 to 255":                                     func(a *App) { a.Restart.StopExitCodes = []int{256} },
		"--ready=tcp is --ready=listen here":                                                   func(a *App) { a.Ready = "tcp" },
		"--watchdog= needs --ready=notify":                                                     func(a *App) { a.Restart.Watchdog = time.Minute },
		"--max-memory= must be at least 1M, got 1K":                                            func(a *App) { a.Restart.MaxMemory = 1 << 10 },
		"--agent=3000 is the app's own --listen=3000":                                          func(a *App) { a.Agent.Port = 3000 },
		"--metrics=3000 is the app's own --listen=3000":                                        func(a *App) { a.Metrics.Port = 3000 },
		"--metrics=9999 is that of --agent=9999":                                               func(a *App) { a.Agent.Port, a.Metrics.Port, a.IdleExit = 9999, 9999, 0 },
		"--agent= does not go with --idle-exit=":                                               func(a *App) { a.Agent.Port, a.IdleExit = 9999, time.Minute },
		"--memory-reload= must be at least 1M, got 1":                                          func(a *App) { a.Restart.MemoryReload = 1 },
		"--memory-reload=2G must be below --max-memory=1G":                                     func(a *App) { a.Restart.MaxMemory, a.Restart.MemoryReload = 1<<30, 2<<30 },
		"--reload-at= must be a calendar expression":                                           func(a *App) { a.Restart.ReloadAt = "daily\nX=y" },
		`--reload-at= must be a calendar expression (systemd.time(7)), got "%i"`:               func(a *App) { a.Restart.ReloadAt = "%i" },
		"--watch= must be an absolute path":                                                    func(a *App) { a.Restart.Watch = []string{"x"} },
		"--watch=/x is given twice":                                                            func(a *App) { a.Restart.Watch = []string{"/x", "/x"} },
		"--weights= must be numbers from 1 to 256":                                             func(a *App) { a.Weights = []int{257} },
		"--weights= has too many numbers":                                                      func(a *App) { a.Weights = slices.Repeat([]int{1}, MaxInstances+1) },
		"--weights= does not go with --strategy=first":                                         func(a *App) { a.Weights, a.Strategy = []int{2}, balance.First },
		"--pin and --property=CPUAffinity= set the same thing":                                 func(a *App) { a.Pin, a.Properties = true, []Property{{"CPUAffinity", "1"}} },
	} {
		a := valid()
		change(&a)
		checkRefused(t, a, want)
	}
}

func TestValidateProperties(t *testing.T) {
	for property, want := range map[string]string{
		"memorymax=1G":       `must begin with the name of a [Service] setting such as MemoryMax, got "memorymax"`,
		"Memory Max=1G":      "must begin with the name",
		"=x":                 "must begin with the name",
		"After=x":            "After= is not a setting of section [Service]",
		"ConditionHost=x":    "ConditionHost= is not a setting of section [Service]",
		"StartLimitBurst=5":  "StartLimitBurst= is not a setting",
		"WantedBy=x":         "WantedBy= is not a setting",
		"ExecStart=/bin/x":   "ExecStart= would replace the command",
		"ExecStop=":          "ExecStop= without a value",
		"Sockets=x.socket":   "Sockets= would pass other sockets",
		"RemainAfterExit=y":  "RemainAfterExit= would keep",
		"Type=oneshot":       "Type=oneshot does not fit an instance",
		"Type=forking":       "Type=forking does not fit an instance",
		"Type=magic":         `Type= must be simple, exec, notify, notify-reload or idle, got "magic"`,
		"User=x":             "User= is not possible, use --user=",
		"WorkingDirectory=/": "WorkingDirectory= is not possible, use --working-directory=",
		"MemoryMax=1G\nX=y":  "MemoryMax= must not contain a line break or NUL",
		"MemoryMax=\xff":     "MemoryMax= must be valid UTF-8",
		`Environment=A=b\`:   "Environment= must not end in a backslash",
	} {
		a := valid()
		key, value, _ := strings.Cut(property, "=")
		a.Properties = []Property{{key, value}}
		checkRefused(t, a, want)
	}
	a := valid()
	a.SystemdVersion = 252
	a.Properties = []Property{{"Type", "notify-reload"}}
	checkRefused(t, a, "--property=Type=notify-reload needs systemd 253, the units are for 252")
}

// checkRefused wants exactly one InputError that contains want.
func checkRefused(t *testing.T, a App, want string) {
	t.Helper()
	if found := InputErrors(a.Validate()); len(found) != 1 || !strings.Contains(found[0].Msg, want) {
		t.Errorf("got %v, want one with %q", a.Validate(), want)
	}
}

// One run says everything that is wrong, in the order of the options.
func TestValidateSaysAll(t *testing.T) {
	a := App{Name: "list", Command: []string{"node"}, Kind: KindPort, Path: PathProxy, Strategy: "best", SystemdVersion: 1}
	if found := InputErrors(a.Validate()); len(found) != 7 {
		t.Errorf("got %d errors, want 7: %v", len(found), a.Validate())
	}
}

func TestInputErrors(t *testing.T) {
	one, two := &InputError{Msg: "one"}, &InputError{Msg: "two", Hint: "--two"}
	tree := errors.Join(one, errors.New("other"), nil, errors.Join(fmt.Errorf("x: %w", two), one))
	if found := InputErrors(tree); len(found) != 2 || found[0] != one || found[1] != two {
		t.Errorf("got %v", found)
	}
	if InputErrors(nil) != nil || InputErrors(errors.New("x")) != nil {
		t.Error("found InputErrors where there are none")
	}
}

func TestParsePairs(t *testing.T) {
	if a, err := ParseAssignment("A=b=c "); err != nil || a != (Assignment{"A", "b=c "}) {
		t.Errorf("got %q, %v", a, err)
	}
	if p, err := ParseProperty("MemoryMax= 1G "); err != nil || p != (Property{"MemoryMax", "1G"}) {
		t.Errorf("got %q, %v", p, err)
	}
	for _, s := range []string{"", "A"} {
		if _, err := ParseAssignment(s); err == nil {
			t.Errorf("--env=%s was let pass", s)
		}
		if _, err := ParseProperty(s); err == nil {
			t.Errorf("--property=%s was let pass", s)
		}
	}
}

func TestWarnings(t *testing.T) {
	a := full()
	if w := a.Warnings(); len(w) != 2 || !strings.HasPrefix(w[0], "--listen=[fe80::1%eth0]:80 ") || !strings.HasPrefix(w[1], "argument 7 of the command is not UTF-8") {
		t.Errorf("got %q", w)
	}
	if w := valid().Warnings(); w != nil {
		t.Errorf("got %q", w)
	}
	a = valid()
	a.Command = []string{"/usr/bin/python3", "-m", "uvicorn", "app:app"}
	if w := a.Warnings(); len(w) != 1 || !strings.Contains(w[0], "hold a reload for 30s of each instance: uvicorn --timeout-graceful-shutdown 10") {
		t.Errorf("of uvicorn, got %q", w)
	}
	a.Command = append(a.Command, "--timeout-graceful-shutdown=5")
	if w := a.Warnings(); w != nil {
		t.Errorf("of uvicorn with its option, got %q", w)
	}
}
