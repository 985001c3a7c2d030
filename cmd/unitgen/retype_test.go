package main

import "testing"

func TestRetype(t *testing.T) {
	for _, test := range []struct {
		args    []string
		options string
		want    string
	}{
		{[]string{"web", "--now", "--", "node", "my server.js"}, "--listen=3000", "unitgen web --now --listen=3000 -- node 'my server.js'"},
		{[]string{"web", "--now", "--", "./server"}, "-- INTERPRETER ./server", "unitgen web --now -- INTERPRETER ./server"},
		{[]string{"./web", "--now"}, "--listen=3000", "unitgen ./web --now --listen=3000"},
	} {
		c := &command{env: &env{args: test.args}}
		if got := c.retype(test.options); got != test.want {
			t.Errorf("%q with %s is %q, want %q", test.args, test.options, got, test.want)
		}
	}
}
