package imports

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/fault"
)

// javaScript reads a configuration that is a program.
func (s *source) javaScript() error {
	if s.JavaScript == nil {
		return s.fault(s.Shown, 0, "", "it is JavaScript, which nothing here runs")
	}
	data, uid, err := s.JavaScript(s.ctx, s.Path)
	s.result.read = append(s.result.read, readFile{s.Shown, uid})
	if err != nil {
		if input, ok := errors.AsType[*app.InputError](err); ok {
			return s.fault(s.Shown, 0, input.Hint, "%s", input.Msg)
		}
		return err
	}
	tree, err := parseJSON(data, false)
	if err != nil {
		return s.treeError(err)
	}
	return s.configuration(tree)
}

// Node runs node to read an ecosystem file that is a program. The zero value runs it as this
// process' user.
type Node struct {
	Program string // absolute path of node; empty: there is none
	Root    bool   // this process is root, which runs no program of others
	User    string // who runs it instead; empty: the owner of the file
	Environ []string
}

// The limits of a configuration as a program.
const (
	nodeTime   = 20 * time.Second
	nodeOutput = maxSource
)

// evaluate.mjs prints the configuration as JSON to descriptor 3.
//
//go:embed evaluate.mjs
var evaluate string

// Evaluate returns the configuration that the file at path exports, as JSON, and the user who ran
// the file. The file is a program and can do what its user can. So root does not run it. Its owner
// runs it, if nobody else can have put it there, or User does. Errors of the file are InputErrors.
func (n Node) Evaluate(ctx context.Context, path string) (json []byte, uid uint32, err error) {
	if n.Program == "" {
		return nil, 0, &app.InputError{Msg: "it is a program for Node.js, and there is no node in $PATH",
			Hint: "node -p 'JSON.stringify(require(\"./" + filepath.Base(path) + "\"))' > ecosystem.json, where there is one"}
	}
	if _, err := os.Stat(path); err != nil {
		return nil, 0, &app.InputError{Msg: fmt.Sprintf("it cannot be read: %v", fault.WithoutPath(err))}
	}
	ctx, cancel := context.WithTimeout(ctx, nodeTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, n.Program, "--input-type=module", "-", path)
	cmd.Stdin = strings.NewReader(evaluate)
	cmd.Dir, cmd.Env = filepath.Dir(path), n.Environ
	// The process has a session of its own: it has no terminal, and one signal ends it with its
	// children.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	uid = uint32(os.Geteuid())
	if n.Root {
		if err := n.become(cmd, path); err != nil {
			return nil, 0, err
		}
		uid = cmd.SysProcAttr.Credential.Uid
	}
	json, err = runLimited(ctx, cmd)
	return json, uid, err
}

// runLimited runs cmd and returns what it writes to descriptor 3.
func runLimited(ctx context.Context, cmd *exec.Cmd) ([]byte, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe: %w", err)
	}
	defer r.Close()
	errs := &limited{max: 64 << 10}
	cmd.Stderr, cmd.ExtraFiles = errs, []*os.File{w}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = time.Second
	err = cmd.Start()
	w.Close()
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", cmd.Path, err)
	}
	out := &limited{max: nodeOutput}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, err := out.ReadFrom(r); err != nil {
			unix.Kill(-cmd.Process.Pid, unix.SIGKILL) // more than its limit: the pipe is read no further
		}
	}()
	err = cmd.Wait()
	unix.Kill(-cmd.Process.Pid, unix.SIGKILL) // what it has started
	r.SetReadDeadline(time.Now().Add(time.Second))
	<-done
	switch {
	case out.over:
		return nil, &app.InputError{Msg: fmt.Sprintf("its configuration has more than %d bytes", nodeOutput)}
	case ctx.Err() == context.DeadlineExceeded:
		return nil, &app.InputError{Msg: fmt.Sprintf("it did not end within %s", app.FormatTimeSpan(nodeTime))}
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, &app.InputError{Msg: "node could not read it: " + firstProblem(errs.String(), err)}
	}
	return out.Bytes(), nil
}

// limited is a buffer for at most max bytes.
type limited struct {
	bytes.Buffer
	max  int
	over bool
}

func (l *limited) Write(p []byte) (int, error) {
	room := min(len(p), l.max-l.Len())
	l.Buffer.Write(p[:room])
	l.over = l.over || room < len(p)
	return len(p), nil
}

// ReadFrom reads until the end, or to the limit, which is an error.
func (l *limited) ReadFrom(r *os.File) (int64, error) {
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		l.Write(buf[:n])
		if l.over {
			return int64(l.Len()), errors.New("too much")
		}
		if err != nil {
			return int64(l.Len()), nil
		}
	}
}

// firstProblem returns the line of node's output that says what is wrong.
func firstProblem(text string, err error) string {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); strings.Contains(line, "Error:") || strings.HasPrefix(line, "Error") {
			return line
		}
	}
	if line, _, _ := strings.Cut(strings.TrimSpace(text), "\n"); line != "" {
		return line
	}
	return err.Error()
}

// become makes cmd run as the user that the options or the owner of path say.
func (n Node) become(cmd *exec.Cmd, path string) error {
	name := n.User
	if name == "" {
		uid, err := ownerOf(path)
		if err != nil {
			return &app.InputError{Msg: "root does not run it: " + err.Error(), Hint: "give the user who is to run it: --user=USER"}
		}
		name = strconv.FormatUint(uint64(uid), 10)
	}
	u, err := lookup(name)
	if err != nil {
		return &app.InputError{Msg: fmt.Sprintf("user %q who is to run it: %v", name, err)}
	}
	uid, _ := strconv.ParseUint(u.Uid, 10, 32)
	gid, _ := strconv.ParseUint(u.Gid, 10, 32)
	if uid == 0 {
		return &app.InputError{Msg: "it is a program, and root does not run it", Hint: "give the user who is to run it: --user=USER"}
	}
	cred := &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), Groups: []uint32{uint32(gid)}}
	groups, _ := u.GroupIds() // without them it has fewer rights, not more
	for _, g := range groups {
		if id, err := strconv.ParseUint(g, 10, 32); err == nil && id != gid {
			cred.Groups = append(cred.Groups, uint32(id))
		}
	}
	cmd.SysProcAttr.Credential = cred
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=" + u.HomeDir, "USER=" + u.Username, "LOGNAME=" + u.Username, "LANG=C.UTF-8"}
	return nil
}

func lookup(name string) (*user.User, error) {
	if u, err := user.Lookup(name); err == nil {
		return u, nil
	}
	return user.LookupId(name)
}

// ownerOf returns the owner of a file that only the owner and root can have put there. The path
// must have no symbolic links, so that a user cannot make root run a file of another user.
func ownerOf(path string) (uint32, error) {
	fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS})
	if errors.Is(err, unix.ELOOP) {
		return 0, errors.New("there is a symbolic link in its path")
	} else if err != nil {
		return 0, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, fmt.Errorf("fstat %s: %w", path, err)
	}
	owner := st.Uid
	if st.Mode&0o022 != 0 {
		return 0, fmt.Errorf("others than user %d can write it", owner)
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if err := unix.Lstat(dir, &st); err != nil {
			return 0, fmt.Errorf("lstat %s: %w", dir, err)
		}
		if st.Uid != 0 && st.Uid != owner || st.Mode&0o022 != 0 && st.Mode&unix.S_ISVTX == 0 {
			return 0, fmt.Errorf("others than user %d can write %s", owner, dir)
		}
		if dir == "/" {
			return owner, nil
		}
	}
}
