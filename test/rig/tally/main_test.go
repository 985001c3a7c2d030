package main

import (
	"strings"
	"testing"
	"time"

	"github.com/unitgen/unitgen/test/rig"
)

func TestTally(t *testing.T) {
	const pass = `{"Action":"run","Package":"m/a","Test":"TestA"}
{"Action":"output","Package":"m/a","Test":"TestA","Output":"quiet\n"}
{"Action":"pass","Package":"m/a","Test":"TestA","Elapsed":0.1}
{"Action":"pass","Package":"m/a","Elapsed":1.25}
`
	const skip = `{"Action":"run","Package":"m/test/b","Test":"TestB"}
{"Action":"output","Package":"m/test/b","Test":"TestB","Output":"    b_test.go:1: not root\n"}
{"Action":"skip","Package":"m/test/b","Test":"TestB","Elapsed":0}
{"Action":"pass","Package":"m/test/b","Elapsed":0}
`
	const left = `{"Action":"run","Package":"m/test/b","Test":"TestC"}
{"Action":"output","Package":"m/test/b","Test":"TestC","Output":"    b_test.go:1: ` + rig.LeftToAll + `long\n"}
{"Action":"skip","Package":"m/test/b","Test":"TestC","Elapsed":0}
`
	const cheap = `{"Action":"attr","Package":"m/a","Test":"TestA","Key":"cpu","Value":"9.50"}
`
	const dear = cheap + `{"Action":"attr","Package":"m/a","Test":"TestB","Key":"cpu","Value":"10.00"}
`
	const fail = `{"Action":"run","Package":"m/c","Test":"TestC"}
{"Action":"run","Package":"m/c","Test":"TestC/one"}
{"Action":"output","Package":"m/c","Test":"TestC/one","Output":"c_test.go:1: \"no\"\n"}
{"Action":"fail","Package":"m/c","Test":"TestC/one","Elapsed":0}
{"Action":"fail","Package":"m/c","Test":"TestC","Elapsed":0}
{"Action":"fail","Package":"m/c","Elapsed":0}
`
	const panicked = `{"Action":"run","Package":"m/d","Test":"TestD"}
{"Action":"output","Package":"m/d","Test":"TestD","Output":"panic: oh\n"}
{"Action":"output","Package":"m/d","Output":"FAIL\tm/d\n"}
{"Action":"fail","Package":"m/d","Elapsed":0}
`
	const unbuilt = `{"ImportPath":"m/e","Action":"build-output","Output":"e.go:1: syntax error\n"}
{"ImportPath":"m/e","Action":"build-fail"}
{"Action":"fail","Package":"m/e","Elapsed":0}
`
	for _, test := range []struct {
		name, in, want string
		ok             bool
	}{
		{"pass", pass, "ok   m/a 1.2s\n1 passed, 0 failed, 0 skipped\n", true},
		{"text between", "make: hello\n" + pass, "make: hello\nok   m/a 1.2s\n1 passed, 0 failed, 0 skipped\n", true},
		{"nothing", "", "0 passed, 0 failed, 0 skipped\n", false},
		{"skip elsewhere", pass + strings.ReplaceAll(skip, "test/", ""), "ok   m/a 1.2s\n    b_test.go:1: not root\nok   m/b 0.0s\n1 passed, 0 failed, 1 skipped\n", true},
		{"forbidden skip", pass + skip, "ok   m/a 1.2s\n    b_test.go:1: not root\nok   m/test/b 0.0s\nskipped, and must not be: m/test/b TestB\n1 passed, 0 failed, 1 skipped\n", false},
		{"left", left + pass, "ok   m/a 1.2s\n1 left to make test-all\n1 passed, 0 failed, 0 skipped\n", true},
		{"within the budget", cheap + pass, "ok   m/a 1.2s, 10s of CPU\n10s of CPU under systemd, most of it by\n     9.5s m/a TestA\n1 passed, 0 failed, 0 skipped\n", true},
		{"over the budget", dear + pass, "", false},
		{"fail", pass + fail, "ok   m/a 1.2s\nc_test.go:1: \"no\"\nFAIL m/c 0.0s\nfailed: m/c TestC/one\nc_test.go:1: \"no\"\n1 passed, 2 failed, 0 skipped\n", false},
		{"panic", pass + panicked, "", false},
		{"build", pass + unbuilt, "ok   m/a 1.2s\ne.go:1: syntax error\nFAIL m/e 0.0s\n1 passed, 1 failed, 0 skipped\n", false},
	} {
		var out strings.Builder
		ok, err := tally(strings.NewReader(test.in), &out, options{noSkips: "/test/", budget: 10 * time.Second})
		if err != nil || ok != test.ok || test.want != "" && out.String() != test.want {
			t.Errorf("%s: %v, %v, output\n%swant\n%s", test.name, ok, err, out.String(), test.want)
		}
		if test.name == "over the budget" && !strings.Contains(out.String(), "    10.0s m/a TestB\n     9.5s m/a TestA\ntests took 20s of CPU, 10s more than the budget of 10s\nhint: ") {
			t.Errorf("%s: output\n%s", test.name, out.String())
		}
		if test.name == "panic" && !(strings.Contains(out.String(), "panic: oh\n") && strings.HasSuffix(out.String(), "1 passed, 1 failed, 0 skipped\n")) {
			t.Errorf("%s: output\n%s", test.name, out.String())
		}
	}
}
