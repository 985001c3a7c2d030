package metrics

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/rollout/tally"
	"github.com/unitgen/unitgen/internal/survey"
)

// The label of an instance's number is app_instance: Prometheus gives every series a label instance
// of its own, the address that it scrapes, and would rename ours.
const (
	labelApp      = "app"
	labelInstance = "app_instance"
	labelAddress  = "address"
	labelState    = "state"
	labelResult   = "result"
)

// emit adds one value of a family. labels are the labels after app, in the family's order.
type emit func(value float64, labels ...string)

// family is one metric.
type family struct {
	name   string
	kind   prometheus.ValueType
	help   string
	labels []string // after app
	each   func(s *survey.App, emit emit)
}

const (
	counter = prometheus.CounterValue
	gauge   = prometheus.GaugeValue
)

// families returns all metrics except the durations of rollouts, which are a summary.
// docs/metrics.md has the same table.
var families = []family{
	{"unitgen_app_info", gauge, "Always 1; how connections reach the instances, and by which strategy, as the balancer says.",
		[]string{"path", "strategy"}, func(s *survey.App, emit emit) {
			if s.Answered {
				emit(1, s.Status.Path, s.Status.Strategy)
			}
		}},
	{"unitgen_app_state", gauge, "1 for the state of the app, 0 for the others. When idle, the next connection starts it.",
		[]string{labelState}, func(s *survey.App, emit emit) {
			for _, state := range survey.AppStates() {
				emit(truth(s.State == state), state)
			}
		}},
	{"unitgen_balancer_up", gauge, "Whether the balancer answers. If it does not, what only it knows is missing; connections are still steered.",
		nil, func(s *survey.App, emit emit) { emit(truth(s.Answered)) }},
	{"unitgen_instances_wanted", gauge, "How many instances the app has: those that are enabled.",
		nil, func(s *survey.App, emit emit) { emit(float64(s.Wanted)) }},
	{"unitgen_instances", gauge, "Instances by state. Stuck ones accept nothing while others do. Extra ones of a rollout count.",
		[]string{labelState}, func(s *survey.App, emit emit) {
			count := make(map[string]int)
			for _, in := range s.Instances {
				count[in.State]++
			}
			for _, state := range survey.States() {
				emit(float64(count[state]), state)
			}
		}},
	{"unitgen_instance_up", gauge, "Whether the instance may take connections.",
		[]string{labelInstance}, each(func(in survey.Instance, emit emit) { emit(truth(in.State == "up"), label(in)) })},
	{"unitgen_instance_restarts_total", counter, "Automatic restarts. Reset when somebody starts or restarts the instance, by a rollout too.",
		[]string{labelInstance}, each(func(in survey.Instance, emit emit) { emit(float64(in.Restarts), label(in)) })},
	{"unitgen_instance_cpu_seconds_total", counter, "CPU time of the instance's processes. Reset at each start of the instance.",
		[]string{labelInstance}, each(func(in survey.Instance, emit emit) {
			if in.Usage.HasCPU {
				emit(in.Usage.CPU, label(in))
			}
		})},
	{"unitgen_instance_memory_bytes", gauge, "Memory that the kernel charges to the instance, page cache included: what MemoryMax= limits. Missing on cgroup v1.",
		[]string{labelInstance}, each(func(in survey.Instance, emit emit) {
			if in.Usage.HasMemory {
				emit(in.Usage.Memory, label(in))
			}
		})},
	{"unitgen_connections_given_total", counter, "Connections that were given to the instance. Reset when the app stops.",
		[]string{labelInstance}, said(func(in survey.Instance, emit emit) { emit(float64(in.Steered), label(in)) })},
	{"unitgen_connections_open", gauge, "Connections that the instance has accepted and that are open. Missing where the balancer cannot count them.",
		[]string{labelInstance}, said(func(in survey.Instance, emit emit) {
			if in.Open >= 0 {
				emit(float64(in.Open), label(in))
			}
		})},
	{"unitgen_connections_queued", gauge, "Connections that were given to the instance and that it has not accepted yet.",
		[]string{labelInstance}, said(func(in survey.Instance, emit emit) { emit(float64(in.Queued), label(in)) })},
	{"unitgen_connections_waiting", gauge, "Connections that wait until any instance is up.",
		[]string{labelAddress}, byAddress(func(a control.AddressStatus) float64 { return float64(a.Waiting) })},
	{"unitgen_connections_waited_total", counter, "Connections that came when no instance was up. Reset when the app stops.",
		[]string{labelAddress}, byAddress(func(a control.AddressStatus) float64 { return float64(a.Parked) })},
	{"unitgen_connections_moved_total", counter, "Connections that were moved away from an instance that did not accept them. Reset when the app stops.",
		[]string{labelAddress}, byAddress(func(a control.AddressStatus) float64 { return float64(a.Migrated) })},
	{"unitgen_connections_refused_total", counter, "Connections that were refused as the app stopped. Reset when the app has stopped.",
		[]string{labelAddress}, byAddress(func(a control.AddressStatus) float64 { return float64(a.Refused) })},
	{"unitgen_connections_unplaced_total", counter, "Connections that the kernel spread by its own hash, as the balancer's choice had no listener. Reset when the app stops.",
		[]string{labelAddress}, byAddress(func(a control.AddressStatus) float64 { return float64(a.Unplaced) })},
	{"unitgen_tampering_total", counter, "Changes of shared sockets that instances made and the balancer put back. Reset when the balancer starts.",
		nil, func(s *survey.App, emit emit) {
			if !s.Answered {
				return
			}
			n := 0
			for _, t := range s.Status.Tampering {
				n += t.Times
			}
			emit(float64(n))
		}},
	{"unitgen_balancer_cpu_seconds_total", counter, "CPU time of the balancer and of the commands of its unit. Reset when it starts.",
		nil, func(s *survey.App, emit emit) {
			if s.Balancer.HasCPU {
				emit(s.Balancer.CPU)
			}
		}},
	{"unitgen_balancer_memory_bytes", gauge, "Memory that the kernel charges to the balancer.",
		nil, func(s *survey.App, emit emit) {
			if s.Balancer.HasMemory {
				emit(s.Balancer.Memory)
			}
		}},
	{"unitgen_rollout_running", gauge, "Whether a rollout is under way.",
		nil, func(s *survey.App, emit emit) { emit(truth(s.Rollouts.Running != 0)) }},
	{"unitgen_rollout_last_end_time_seconds", gauge, "When the last rollout ended, by the clock. Missing if there was none since the boot.",
		nil, func(s *survey.App, emit emit) {
			if s.Rollouts.Last != 0 {
				emit(float64(s.Rollouts.Last) / 1e6)
			}
		}},
}

// Durations of rollouts.
const (
	rolloutName = "unitgen_rollout_duration_seconds"
	rolloutHelp = "Rollouts by result (success, failure, cancelled, killed), and for how long they took; 0 for one that was killed. Reset at a boot, and when the app is removed."
)

func label(in survey.Instance) string { return strconv.Itoa(in.Number) }

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// each calls f for every instance.
func each(f func(in survey.Instance, emit emit)) func(*survey.App, emit) {
	return func(s *survey.App, emit emit) {
		for _, in := range s.Instances {
			f(in, emit)
		}
	}
}

// said is each for values that only the balancer knows.
func said(f func(in survey.Instance, emit emit)) func(*survey.App, emit) {
	return func(s *survey.App, emit emit) {
		if s.Answered {
			each(f)(s, emit)
		}
	}
}

// byAddress emits a value of each public address.
func byAddress(f func(control.AddressStatus) float64) func(*survey.App, emit) {
	return func(s *survey.App, emit emit) {
		for _, a := range s.Status.Addresses {
			emit(f(a), a.Address)
		}
	}
}

// collector emits what was gathered for one scrape.
type collector struct {
	descs   []*prometheus.Desc
	rollout *prometheus.Desc
	gather  func() ([]survey.App, error)
}

func newCollector(gather func() ([]survey.App, error)) *collector {
	c := &collector{gather: gather, rollout: prometheus.NewDesc(rolloutName, rolloutHelp, []string{labelApp, labelResult}, nil)}
	for _, f := range families {
		c.descs = append(c.descs, prometheus.NewDesc(f.name, f.help, append([]string{labelApp}, f.labels...), nil))
	}
	return c
}

func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		out <- d
	}
	out <- c.rollout
}

func (c *collector) Collect(out chan<- prometheus.Metric) {
	all, err := c.gather()
	if err != nil {
		out <- prometheus.NewInvalidMetric(c.descs[0], err) // the scrape fails: status 500 with the reason
		return
	}
	for i := range all {
		s := &all[i]
		for n, f := range families {
			f.each(s, func(value float64, labels ...string) {
				out <- prometheus.MustNewConstMetric(c.descs[n], f.kind, value, append([]string{string(s.Name)}, labels...)...)
			})
		}
		for _, result := range tally.Results() {
			e := s.Rollouts.Ended[result]
			out <- prometheus.MustNewConstSummary(c.rollout, e.Count, e.Seconds, nil, string(s.Name), string(result))
		}
	}
}
