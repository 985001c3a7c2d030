package plan

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/needs"
)

func TestDifference(t *testing.T) {
	for _, test := range []struct {
		have      []int
		n         int
		add, drop []int
	}{
		{nil, 3, []int{1, 2, 3}, nil},
		{[]int{1, 2, 3}, 3, nil, nil},
		{[]int{1, 2, 5}, 5, []int{3, 4}, nil},
		{[]int{1, 2, 5}, 1, nil, []int{5, 2}},
		{[]int{7}, 2, []int{1}, nil},
	} {
		add, drop := difference(test.have, test.n)
		if !slices.Equal(add, test.add) || !slices.Equal(drop, test.drop) {
			t.Errorf("difference(%v, %d) = %v, %v", test.have, test.n, add, drop)
		}
	}
}

// The diff of any two texts, applied by patch(1), gives the second.
func TestUnifiedDiff(t *testing.T) {
	needs.Program(t, "patch", "patch")
	lines := func(s string) string { return strings.Join(strings.Split(s, ""), "\n") + "\n" }
	for _, test := range [][2]string{
		{"abc", "abc" + "d"}, {"abcdefghijklmnop", "abXdefghijklmYop"}, {"a", "b"}, {"abcdefgh", "h"}, {"aaaa", "aabaa"},
		{"abcdefghij", "Abcdefghij"}, {"abcdefghijklmnopqrstuvwxyz", "bcdefghijklmnopqrstuvwxy"}, {"xaxbxcxdxexfxgxhx", "axbxcxdxexfxgxh"},
	} {
		dir := t.TempDir()
		old, text := lines(test[0]), lines(test[1])
		if err := os.WriteFile(dir+"/f", []byte(old), 0o600); err != nil {
			t.Fatal(err)
		}
		p := Plan{Changes: []Change{{Path: "f", Old: old, Text: text}}}
		cmd := exec.Command("patch", "-s", "--fuzz=0", "f")
		cmd.Dir, cmd.Stdin = dir, strings.NewReader(p.Diff())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%q: %v\n%s\n%s", test, err, out, p.Diff())
		}
		if got, _ := os.ReadFile(dir + "/f"); string(got) != text {
			t.Errorf("%q gave %q", test, got)
		}
	}
}

// An app is written, read back, found in the list and removed, and leaves nothing.
func TestLifeOfAnApp(t *testing.T) {
	root := t.TempDir()
	s := Site{Dir: root + "/etc/systemd/system", Root: root, Lbshim: "/usr/lib/unitgen/lbshim", CPUs: func() []int { return []int{0, 2} }}
	a := app.App{Name: "web", Command: []string{"/bin/true"}, Listen: []app.Listen{{Port: 3000}}, Pin: true}
	write := func(instances int) *Plan {
		t.Helper()
		d, err := s.Read(a.Name)
		if err != nil {
			t.Fatal(err)
		}
		p, err := d.For(a, instances)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Write(); err != nil {
			t.Fatal(err)
		}
		return p
	}
	if p := write(3); p.Was != nil || !slices.Equal(p.Add, []int{1, 2, 3}) || p.Effect() != EffectNone {
		t.Errorf("new: was %v, add %v, effect %q", p.Was, p.Add, p.Effect())
	}
	if p := write(3); len(p.Changes) != 0 || p.Diff() != "" || !strings.HasPrefix(p.Text(), "# nothing to do\n\n# "+s.Dir+"/web") {
		t.Errorf("again: %d changes, diff %q, text %q", len(p.Changes), p.Diff(), p.Text())
	}
	if p := write(1); !slices.Equal(p.Drop, []int{3, 2}) || p.Effect() != EffectNone || !strings.Contains(p.Text(), "# remove "+s.Dir+"/web.service.wants/web@3.service\n") {
		t.Errorf("fewer: drop %v, effect %q, text %q", p.Drop, p.Effect(), p.Text())
	}
	a.Listen[0].Port = 3001
	if p := write(1); !p.ListenChanges() || !slices.Equal(p.NewListeners(), a.Listen) || !strings.Contains(p.Text(), "# the listeners change: if web runs") {
		t.Errorf("another port: new listeners %v, text %q", p.NewListeners(), p.Text())
	}
	apps, err := s.Apps()
	if err != nil || len(apps) != 1 || apps[0].App.Listen[0].Port != 3001 || !slices.Equal(s.Instances("web"), []int{1}) {
		t.Errorf("listed %+v, instances %v, error %v", apps, s.Instances("web"), err)
	}
	removals, err := s.Removals("web")
	if err != nil {
		t.Fatal(err)
	}
	if err := Commit(removals); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(s.Dir); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if _, err := s.Removals("web"); err == nil {
		t.Error("removed twice")
	}
}
