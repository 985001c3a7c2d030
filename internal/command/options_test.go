package command

import "testing"

func TestTimesAreInSystemdsWords(t *testing.T) {
	o := DefaultOptions()
	if err := o.Flags().Parse([]string{"--drain-timeout=1min 30s", "--idle-exit=10min"}); err != nil {
		t.Fatal(err)
	}
	if o.DrainTimeout.String() != "1m30s" || o.IdleExit.String() != "10m0s" {
		t.Errorf("drain %s, idle %s", o.DrainTimeout, o.IdleExit)
	}
}
