package explain

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// MaxReasons bounds the reasons that are searched and shown for an app with many instances.
const MaxReasons = 4

// Failure is one reason and the instances that have it.
type Failure struct {
	Reason
	Instances []string // app@1, app@2
}

func (f Failure) String() string {
	return fmt.Sprintf("%s did not get ready: %s", strings.Join(f.Instances, ", "), f.Reason)
}

// failures are reasons that are different.
type failures []Failure

// add adds an instance and its reason, unless there are MaxReasons others. Reasons are compared by
// their words, as hints may name the instance.
func (all *failures) add(r Reason, unit string) (full bool) {
	name := strings.TrimSuffix(unit, ".service")
	at := slices.IndexFunc(*all, func(f Failure) bool { return f.Reason.String() == r.String() })
	switch {
	case at >= 0 && slices.Contains((*all)[at].Instances, name):
	case at >= 0:
		(*all)[at].Instances = append((*all)[at].Instances, name)
	case len(*all) == MaxReasons:
		return true
	default:
		*all = append(*all, Failure{Reason: r, Instances: []string{name}})
	}
	return false
}

// Instances returns why the instances among numbers that are not up have failed, each different
// reason once, at most MaxReasons.
func (q Question) Instances(ctx context.Context, numbers []int) ([]Failure, error) {
	var all failures
	for _, i := range numbers {
		unit := q.App.Instance(i)
		u, err := q.Conn.Unit(ctx, unit)
		if err != nil {
			return all, err
		}
		if u.Up() {
			continue
		}
		r, err := q.Instance(ctx, i)
		if err != nil {
			return all, err
		}
		if r.What != "" && all.add(r, unit) {
			return all, nil
		}
	}
	return all, nil
}
