package app

import (
	"slices"
	"testing"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]Size{"0": 0, "1": 1, "4096": 4096, "1K": 1 << 10, "512M": 512 << 20, "2G": 2 << 30, "1T": 1 << 40, "1536M": 3 << 29} {
		got, err := ParseSize(text)
		if err != nil || got != want {
			t.Errorf("%q: got %d, %v", text, got, err)
		}
		if back, err := ParseSize(got.String()); err != nil || back != got {
			t.Errorf("%q: written as %q, read back as %d, %v", text, got, back, err)
		}
	}
	for _, text := range []string{"", "M", "1.5G", "-1", "+1", "1k", "1 M", "10%", "infinity", "8388608T", "1MB", "0x10"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q: got %d", text, got)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	for _, text := range []string{"0", "1K", "512M", "8388607T"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		size, err := ParseSize(text)
		if err != nil {
			return
		}
		if back, err := ParseSize(size.String()); err != nil || back != size {
			t.Errorf("%q is %d, written as %q, read back as %d, %v", text, size, size, back, err)
		}
	})
}

func TestNumbers(t *testing.T) {
	if got, err := ParseWeights("3,1,256"); err != nil || !slices.Equal(got, []int{3, 1, 256}) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, text := range []string{"", "0", "257", "1,", ",1", "1, 2", "01", "+1", "a", "1;2"} {
		if got, err := ParseWeights(text); len(InputErrors(err)) != 1 {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
	}
	a := App{Weights: []int{3, 2}}
	if a.Weight(1) != 3 || a.Weight(2) != 2 || a.Weight(3) != 1 || a.Weight(0) != 1 {
		t.Errorf("weights of %v: %d %d %d %d", a.Weights, a.Weight(0), a.Weight(1), a.Weight(2), a.Weight(3))
	}
}

func TestPinPath(t *testing.T) {
	n := Name("web-app")
	if got, ok := n.ParsePin(n.Pin(17)); !ok || got != 17 {
		t.Errorf("%s: got %d, %v", n.Pin(17), got, ok)
	}
	for _, path := range []string{"", "web-app@.service.d/50-unitgen-pin.conf", "web-app@01.service.d/50-unitgen-pin.conf",
		"web-app.service.d/50-unitgen-pin.conf", "web-app@1.service", "web-app@1.socket.d/50-unitgen-pin.conf", "web-app@1.service.d/mine.conf"} {
		if got, ok := n.ParsePin(path); ok {
			t.Errorf("%q: got %d", path, got)
		}
	}
}

// The units that an app has are some of those that one can have, in their order.
func TestUnits(t *testing.T) {
	a := App{Name: "app"}
	if len(a.Units()) != 8 || len(a.Triggers()) != 0 || !slices.IsSorted(a.Name.Units()) {
		t.Errorf("an app has %v of %v", a.Units(), a.Name.Units())
	}
	a.Restart.Watch = []string{"/x"}
	if got := a.Triggers(); !slices.Equal(got, []string{"app-reload.path"}) || !slices.Contains(a.Units(), "app-reload.service") {
		t.Errorf("with a watch: triggers %v, units %v", got, a.Units())
	}
	a.Restart.Watch, a.Restart.ReloadAt, a.Restart.MemoryReload = nil, "daily", 1<<30
	if got := a.Triggers(); !slices.Equal(got, []string{"app-memory.timer", "app-reload.timer"}) || len(a.Units()) != 12 {
		t.Errorf("with timers: triggers %v, units %v", got, a.Units())
	}
}
