package account

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/unitgen/unitgen/internal/app"
)

// aBook has local users root and alice, and a directory service that knows ug-web as uid.
func aBook(t *testing.T, uid string) Book {
	t.Helper()
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{"passwd": "root:x:0:0::/root:/bin/sh\nalice:x:1000:1001::/:/bin/sh\nbroken\n", "group": "root:x:0:\nstaff:x:50:alice\n"} {
		if err := os.WriteFile(filepath.Join(root, "etc", file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Book{Root: root, Getent: func(_ context.Context, database string, keys []string) ([]byte, error) {
		if uid == "" {
			return nil, errors.New("no answer")
		}
		if database == "passwd" && keys[0] == "ug-web" {
			return []byte("ug-web:x:" + uid + ":" + uid + "::/:/bin/sh\n"), nil
		}
		return nil, nil
	}}
}

func TestFind(t *testing.T) {
	b := aBook(t, "5000")
	for key, want := range map[string]Account{
		"alice":  {Name: "alice", ID: 1000, Group: 1001, Local: true},
		"1000":   {Name: "alice", ID: 1000, Group: 1001, Local: true},
		"ug-web": {Name: "ug-web", ID: 5000, Group: 5000},
	} {
		if found, known := b.Find(t.Context(), "passwd", key); !known || len(found) != 1 || found[0] != want {
			t.Errorf("%s: %+v, known %v, want %+v", key, found, known, want)
		}
	}
	if found, known := b.Find(t.Context(), "passwd", "nobody-here"); !known || len(found) != 0 {
		t.Errorf("who is not there: %+v, known %v", found, known)
	}
	if _, known := (Book{Root: t.TempDir()}).Find(t.Context(), "passwd", "alice"); known {
		t.Error("without a file and without getent it is known who is there")
	}
}

// Only an account that PID 1 has not made itself is in the way of an app's dynamic user.
func TestTaken(t *testing.T) {
	a := app.App{Name: "web"}
	for uid, want := range map[string]string{"5000": "ug-web", "61184": "", "65519": "", "65520": "ug-web", "": ""} {
		if got := aBook(t, uid).Taken(t.Context(), a, []int{1}); got != want {
			t.Errorf("an account with uid %q: %q is taken, want %q", uid, got, want)
		}
	}
	a.User = "alice"
	if got := aBook(t, "5000").Taken(t.Context(), a, []int{1}); got != "" {
		t.Errorf("an app with a user of its own: %q is taken", got)
	}
}
