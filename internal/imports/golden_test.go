package imports

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/unitgen/unitgen/internal/needs"
)

var update = flag.Bool("update", false, "write what comes out into testdata")

// options are those of an import of a file, on a machine with two CPUs.
func options(t *testing.T, path string) Options {
	t.Helper()
	node, _ := exec.LookPath("node") // not all need it
	return Options{Path: path, Shown: filepath.Base(path), CPUs: func() int { return 2 },
		Getenv:     func(key string) string { return map[string]string{"LEVEL": "3", "API_TOKEN": "hidden"}[key] },
		JavaScript: Node{Program: node, Environ: os.Environ()}.Evaluate}
}

// TestSources imports the file that each archive of testdata begins with, and compares what comes
// out with those below want/.
func TestSources(t *testing.T) {
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(archives) < 8 {
		t.Fatal(archives, err)
	}
	for _, path := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) { testArchive(t, path) })
	}
}

func testArchive(t *testing.T, path string) {
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, f := range archive.Files {
		if !strings.HasPrefix(f.Name, "want/") {
			writeTestFile(t, filepath.Join(dir, f.Name), string(f.Data))
		}
	}
	o := options(t, filepath.Join(dir, archive.Files[0].Name))
	if filepath.Ext(o.Path) == ".cjs" {
		needs.Program(t, "node", "nodejs")
	}
	m, err := Read(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{"report": m.Report()}
	for _, f := range m.Files("") {
		got[f.Path] = f.Text
		if secretFile := strings.HasSuffix(f.Path, ".env"); secretFile != f.Secret {
			t.Errorf("%s: secret is %v", f.Path, f.Secret)
		}
		if strings.Contains(f.Text, "hidden") && !f.Secret {
			t.Errorf("%s has a secret:\n%s", f.Path, f.Text)
		}
	}
	if strings.Contains(got["report"], "hidden") {
		t.Errorf("the report has a secret:\n%s", got["report"])
	}
	for i := range archive.Files {
		f := &archive.Files[i]
		name, isWant := strings.CutPrefix(f.Name, "want/")
		if !isWant {
			continue
		}
		text, made := got[name]
		delete(got, name)
		text = strings.ReplaceAll(text, dir, "$DIR")
		switch {
		case *update:
			f.Data = []byte(text)
		case !made:
			t.Errorf("%s was not made", name)
		case text != string(f.Data):
			t.Errorf("%s is\n%s\nwant\n%s", name, text, f.Data)
		}
	}
	for name := range got {
		t.Errorf("%s was made, and %s does not have it", name, path)
	}
	if *update {
		if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func writeTestFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// What is printed of files of secrets has none of them.
func TestText(t *testing.T) {
	got := Text([]File{{Path: "a.unitgen", Text: "Listen=80\n"}, {Path: "a.env", Text: "TOKEN=hidden\n", Secret: true}})
	if want := "\n# a.unitgen\nListen=80\n\n# a.env, readable by its owner only; values are not shown\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
