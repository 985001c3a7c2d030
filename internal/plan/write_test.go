package plan

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/needs"
)

// tree describes all that a directory holds: names, inodes, modes, times, targets and contents.
func tree(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := os.Lstat(path)
		if err != nil {
			return err
		}
		b.WriteString(strings.TrimPrefix(path, root) + " " + st.Mode().String())
		if !d.IsDir() { // a directory's own time and size may change
			b.WriteString(" " + st.ModTime().String() + " " + strconv.FormatUint(st.Sys().(*syscall.Stat_t).Ino, 10))
		}
		if target, err := os.Readlink(path); err == nil {
			b.WriteString(" -> " + target)
		} else if text, err := os.ReadFile(path); err == nil {
			b.WriteString("\n" + string(text))
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// populate makes what the changes of someChanges replace, remove and leave.
func populate(t *testing.T, dir string) {
	t.Helper()
	wants := dir + "/app.service.wants"
	if err := os.Mkdir(wants, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"app.service": "old\n", "app.socket": "old socket\n", "other": "other\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"app@1.service", "app@2.service"} {
		if err := os.Symlink("/etc/systemd/system/app@.service", filepath.Join(wants, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func someChanges(dir string) []Change {
	return []Change{
		{Path: dir + "/app.service", Text: "new\n"},
		{Path: dir + "/app@.service", Text: "new template\n"},
		{Path: dir + "/app.socket"},
		{Path: dir + "/app.service.wants/app@1.service", Target: "../app@.service"},
		{Path: dir + "/app.service.wants/app@2.service"},
		{Path: dir + "/app.service.wants/app@3.service", Target: "../app@.service"},
		{Path: dir + "/a/b/deep", Text: "deep\n"},
	}
}

func TestCommit(t *testing.T) {
	dir := t.TempDir()
	populate(t, dir)
	if err := Commit(someChanges(dir)); err != nil {
		t.Fatal(err)
	}
	got := regexp.MustCompile(`(?m) \d{4}-.*? \d+($| ->)`).ReplaceAllString(tree(t, dir), "$1")
	want := ` drwxr-xr-x
/a drwxr-xr-x
/a/b drwxr-xr-x
/a/b/deep -rw-r--r--
deep

/app.service -rw-r--r--
new

/app.service.wants drwxr-xr-x
/app.service.wants/app@1.service Lrwxrwxrwx -> ../app@.service
/app.service.wants/app@3.service Lrwxrwxrwx -> ../app@.service
/app@.service -rw-r--r--
new template

/other -rw-r-----
other

`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// Whatever fails, and whenever: the directory is as it was, inodes and times of files and links
// included.
func TestCommitRollsBack(t *testing.T) {
	for _, name := range []string{"in staging", "in swapping"} {
		for at := range len(someChanges("")) + 1 {
			dir := t.TempDir()
			populate(t, dir)
			bad := Change{Path: dir + "/other/below", Text: "x"} // "other" is a file
			if name == "in swapping" {
				bad = Change{Path: dir + "/full", Text: "x"} // is replaced by a directory: rename fails
				if err := os.MkdirAll(dir+"/full/sub", 0o755); err != nil {
					t.Fatal(err)
				}
			}
			before := tree(t, dir)
			changes := slices.Insert(someChanges(dir), at, bad)
			if err := Commit(changes); err == nil {
				t.Fatalf("%s, change %d: no error", name, at)
			}
			if after := tree(t, dir); after != before {
				t.Errorf("%s, change %d:\n%s\nbefore\n%s", name, at, after, before)
			}
		}
	}
}

// A disk that is full at any point.
func TestCommitFullDisk(t *testing.T) {
	needs.Root(t, "it mounts a tmpfs")
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		needs.Missing(t, "mount: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	populate(t, dir)
	filled := 0
	for free := 0; ; free++ {
		if free > 16 {
			t.Fatal("it never fitted")
		}
		fill(t, dir+"/ballast", free)
		before := tree(t, dir)
		err := Commit(someChanges(dir))
		if err == nil {
			break
		}
		filled++
		if !errors.Is(err, unix.ENOSPC) || strings.Contains(err.Error(), temporary) {
			t.Errorf("%d pages free: %v", free, err)
		}
		if after := tree(t, dir); after != before {
			t.Errorf("%d pages free:\n%s\nbefore\n%s", free, after, before)
		}
	}
	if filled == 0 {
		t.Error("the disk was never full")
	}
}

// fill writes file until no more than free pages are left.
func fill(t *testing.T, file string, free int) {
	t.Helper()
	os.Remove(file)
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	page := make([]byte, os.Getpagesize())
	n := 0
	for ; err == nil; n++ {
		_, err = f.Write(page)
	}
	if err := errors.Join(f.Truncate(int64(max(0, n-1-free)*len(page))), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// One run waits for another, and removes what one that was killed left behind.
func TestLock(t *testing.T) {
	dir := t.TempDir()
	stale := dir + "/" + temporary + "1-0-new"
	if err := os.WriteFile(stale, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	waited := 0
	waiting := func() { waited++ }
	s := Site{Dir: dir, Packaging: true}
	release, err := s.Lock(t.Context(), waiting)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(stale); err == nil {
		t.Error("left behind")
	}
	done := make(chan error, 1)
	go func() {
		release, err := s.Lock(context.Background(), waiting)
		if err == nil {
			release()
		}
		done <- err
	}()
	select {
	case <-done:
		t.Error("the second run did not wait")
	case <-time.After(20 * time.Millisecond):
	}
	release()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if waited != 1 {
		t.Errorf("told %d times that it waits, want once", waited)
	}
	release, err = s.Lock(t.Context(), waiting)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := s.Lock(ctx, waiting); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("interrupted: %v", err)
	}
}

// A file system that is read-only: one error, and nothing said of temporary names.
func TestCommitReadOnly(t *testing.T) {
	needs.Root(t, "it mounts a tmpfs")
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_RDONLY, "size=64k"); err != nil {
		needs.Missing(t, "mount: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	err := Commit([]Change{{Path: dir + "/app.service", Text: "new\n"}})
	if !errors.Is(err, unix.EROFS) || strings.Contains(err.Error(), temporary) || len(app.Parts(err)) != 1 {
		t.Errorf("got %v", err)
	}
}
