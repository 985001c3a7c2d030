package account

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/unitgen/unitgen/internal/app"
)

// The owner, a group and the others each need their own bit on each directory of the way, also
// behind links.
func TestUserMayEnter(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"etc", "way/in"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	me, group := strconv.Itoa(os.Getuid()+1), strconv.Itoa(os.Getgid())
	for name, text := range map[string]string{"passwd": "stranger:x:" + me + ":7777:\nmember:x:" + me + ":7777:\n", "group": "mine:x:" + group + ":x,member\n"} {
		if err := os.WriteFile(filepath.Join(root, "etc", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	way, link := filepath.Join(root, "way"), filepath.Join(root, "link")
	if err := os.Symlink(filepath.Join(way, "in"), link); err != nil {
		t.Fatal(err)
	}
	book := Book{Root: root}
	if err := os.Chmod(filepath.Dir(root), 0o755); err != nil { // that of all directories of this test
		t.Fatal(err)
	}
	if err := os.WriteFile(way+"/in/file", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		mode         os.FileMode
		user         string
		file, closed string
	}{
		{0o755, "stranger", way + "/in/file", ""},
		{0o750, "stranger", way + "/in/file", way},
		{0o750, "member", way + "/in/file", ""},
		{0o705, "member", way + "/in/file", way}, // the group's bits count, and those of others do not
		{0o750, "stranger", link + "/file", way},
		{0o700, "", way + "/", way},
		{0o700, "stranger", way, ""}, // a file beside it
	} {
		if err := os.Chmod(way, test.mode); err != nil {
			t.Fatal(err)
		}
		v := book.User(t.Context(), app.App{User: test.user})
		if dir, closed := v.Closed(test.file); closed != (test.closed != "") || dir != test.closed {
			t.Errorf("mode %o, %s to %s: %q, %v, want %q", test.mode, v, test.file, dir, closed, test.closed)
		}
	}
	if v := book.User(t.Context(), app.App{User: "unknown"}); v != nil {
		t.Errorf("a user who is not known: %v", v)
	}
	v := book.User(t.Context(), app.App{User: "stranger", Properties: []app.Property{{Key: "SupplementaryGroups", Value: "any"}}})
	if err := os.Chmod(way, 0o750); err != nil {
		t.Fatal(err)
	}
	if dir, closed := v.Closed(way + "/in/file"); closed {
		t.Errorf("a group of a property may be the right one, and %s is closed", dir)
	}
}
