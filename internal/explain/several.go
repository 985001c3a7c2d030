package explain

import (
	"context"
	"fmt"
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

// Instances returns why the instances among numbers that are not up have failed, each different
// reason once, at most MaxReasons.
func (q Question) Instances(ctx context.Context, numbers []int) ([]Failure, error) {
	var all []Failure
	at := make(map[string]int) // by the reason's words; hints may name the instance
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
		if r.What == "" {
			continue
		}
		k, known := at[r.String()]
		if !known {
			if len(all) == MaxReasons {
				return all, nil
			}
			k = len(all)
			at[r.String()] = k
			all = append(all, Failure{Reason: r})
		}
		all[k].Instances = append(all[k].Instances, strings.TrimSuffix(unit, ".service"))
	}
	return all, nil
}
