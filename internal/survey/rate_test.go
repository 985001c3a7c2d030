package survey

import (
	"testing"
	"time"
)

// seen is a look at app web with one instance that has run since second 0.
func seen(at int64, cpu float64, steered uint64) *Look {
	in := Instance{Number: 1, State: "up", Started: time.Unix(100, 0), Usage: Usage{CPU: cpu, HasCPU: true}, Steered: steered}
	return &Look{At: time.Unix(100+at, 0), Apps: []App{{Name: "web", State: "active", Answered: true, Opened: time.Unix(90, 0), Instances: []Instance{in}}}}
}

func TestRate(t *testing.T) {
	restarted := seen(10, 9, 90)
	restarted.Apps[0].Instances[0].Started = time.Unix(50, 0)
	silent := seen(10, 1, 0)
	silent.Apps[0].Answered = false
	for name, test := range map[string]struct {
		before           *Look
		cpu, connections float64
	}{
		"the first look has the average":                 {nil, 0.2, 10},
		"since the look before":                          {seen(10, 1, 100), 0.3, 20},
		"another run of the instance":                    {restarted, 0.2, 21},
		"counters that went back":                        {seen(10, 5, 500), 0.2, 10},
		"an app that was not there":                      {&Look{At: time.Unix(110, 0)}, 0.2, 10},
		"a balancer that was silent":                     {silent, 0.3, 10},
		"at the same moment, as the clock may be set so": {seen(20, 4, 300), 0, 0},
	} {
		now := seen(20, 4, 300)
		for _, got := range []Rate{now.Rate(test.before, now.Apps[0], now.Apps[0].Instances[0]), now.AppRate(test.before, now.Apps[0])} {
			if got.CPU != test.cpu || got.Connections != test.connections {
				t.Errorf("%s: got %+v, want CPU %v, connections %v", name, got, test.cpu, test.connections)
			}
		}
	}
	if got := (Look{}).AppRate(nil, App{Instances: []Instance{{Number: 1}}}); got != (Rate{}) {
		t.Errorf("an instance that does not run: %+v", got)
	}
}
