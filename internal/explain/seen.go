package explain

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/unitgen/unitgen/internal/bindnotify"
)

// Outcome is how the wait for an instance ended.
type Outcome string

const (
	Ended       Outcome = "ended"        // the program ended
	NotAccepted Outcome = "not accepted" // no connection was accepted in time
	Other       Outcome = "other"        // Seen.Text says it
)

// Seen is what the command that waited for an instance saw before it gave up. PID 1 then ends the
// program, so nobody can look later. The command writes a note, which the next command for the same
// instance overwrites.
type Seen struct {
	Invocation string        `json:"invocation"` // of the instance
	Outcome    Outcome       `json:"outcome"`
	Text       string        `json:"text,omitempty"` // what the command itself said
	Waited     time.Duration `json:"waited"`
	Addresses  []string      `json:"addresses,omitempty"` // of the app
	Sockets    []Socket      `json:"sockets,omitempty"`   // of the program, see Look

	// What is wrong with the program's bind(), if its supervisor has reported it, as a clause, and
	// the command to type.
	Binding     string `json:"binding,omitempty"`
	BindingHint string `json:"bindingHint,omitempty"`
	Unseen      bool   `json:"unseen,omitempty"` // it may bind by io_uring
}

// NoteBinding takes over what the supervisor of the instance has seen.
func (s *Seen) NoteBinding(app string, state bindnotify.State) {
	var addresses []netip.AddrPort
	for _, address := range s.Addresses {
		if a, err := netip.ParseAddrPort(address); err == nil {
			addresses = append(addresses, a)
		}
	}
	s.Binding, s.BindingHint = state.Problem(app, addresses)
	s.Unseen = state.MayBindUnseen()
}

// maxSockets bounds a note: a program may open thousands.
const maxSockets = 16

// Look lists the sockets on which the processes of an instance listen, without the app's listeners,
// and the addresses that they wait for. pid is the program's process. The program's processes are
// all those in its control group except the callers of lbshim. Look sees nothing of other users'
// processes unless it runs as root.
func Look(pid int, addresses []string) []Socket { return look("/proc", pid, addresses) }

func look(proc string, pid int, addresses []string) []Socket {
	main := strconv.Itoa(pid)
	group := cgroupLines(proc, main)
	if group == "" {
		return nil
	}
	open := make(map[uint64]bool)
	left := budget(mostDescriptors)
	manager := left
	given := manager.socketsOf(proc, "1") // the app's, where PID 1 is the manager and the caller is root
	for _, p := range processes(proc) {
		if cgroupLines(proc, p) != group {
			continue
		}
		if comm, _ := os.ReadFile(filepath.Join(proc, p, "comm")); p != main && strings.TrimSpace(string(comm)) == "lbshim" {
			continue
		}
		for inode := range left.socketsOf(proc, p) {
			open[inode] = true
		}
	}
	var found []Socket
	for _, s := range socketTable(proc, main) {
		own := given[s.inode] || s.Net == "tcp" && !s.Waits && isOwn(s, addresses)
		if open[s.inode] && !own && len(found) < maxSockets {
			found = append(found, s)
		}
	}
	return found
}

// isOwn reports whether a socket has a port of the app.
func isOwn(s Socket, addresses []string) bool {
	return slices.ContainsFunc(addresses, func(address string) bool {
		a, err := netip.ParseAddrPort(address)
		return err == nil && int(a.Port()) == s.port()
	})
}

// noteName is the file of an instance's note in the runtime directory of the app.
func noteName(instance int) string { return "not-ready-" + strconv.Itoa(instance) }

// Write writes the note, readable only by root or the app's user, as addresses and texts are
// private. A reader finds this note or the one before, whole.
func (s Seen) Write(runtimeDir string, instance int) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	path := filepath.Join(runtimeDir, noteName(instance))
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// ReadSeen reads the note of an instance, and when it was written.
func ReadSeen(runtimeDir string, instance int) (s Seen, at time.Time, err error) {
	path := filepath.Join(runtimeDir, noteName(instance))
	text, err := os.ReadFile(path)
	if err != nil {
		return s, at, err
	}
	st, err := os.Stat(path)
	if err != nil {
		return s, at, err
	}
	return s, st.ModTime(), json.Unmarshal(text, &s)
}

// Forget removes the note of an instance that is ready, or the notes of all instances for number 0.
func Forget(runtimeDir string, instance int) error {
	files := []string{filepath.Join(runtimeDir, noteName(instance))}
	if instance == 0 {
		files, _ = filepath.Glob(filepath.Join(runtimeDir, "not-ready-*"))
	}
	var errs []error
	for _, file := range files {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("forget why an instance was not ready: %w", err))
		}
	}
	return errors.Join(errs...)
}

// String is what the command says in the journal.
func (s Seen) String() string {
	switch s.Outcome {
	case Ended:
		return "the program ended before it accepted a connection"
	case NotAccepted:
		return fmt.Sprintf("the program ran for %s and accepted no connection: %s", span(s.Waited), s.does())
	}
	return s.Text
}

// does says what the program does instead.
func (s Seen) does() string {
	if s.Binding != "" {
		return s.Binding
	}
	if listens := s.all(func(o Socket) bool { return !o.Waits && o.Net == "tcp" }); listens != "" {
		if len(s.Addresses) == 0 {
			return "it listens on " + listens
		}
		return fmt.Sprintf("it listens on %s, but the app's address is %s", listens, s.own())
	}
	if waits := s.all(func(o Socket) bool { return o.Waits }); waits != "" {
		return "it waits for an answer of " + waits
	}
	if others := s.all(func(o Socket) bool { return !o.Waits }); others != "" {
		return fmt.Sprintf("it listens on %s, and on no TCP port", others)
	}
	if s.Unseen {
		return "it listens nowhere; it uses io_uring, and the balancer cannot see a bind by io_uring: switch io_uring off in the program"
	}
	return "it listens nowhere, and did not take its socket (descriptor 3, sd_listen_fds(3))"
}

// all names the sockets for which is holds, each once.
func (s Seen) all(is func(Socket) bool) string {
	var names []string
	for _, o := range s.Sockets {
		if is(o) && !slices.Contains(names, o.String()) {
			names = append(names, o.String())
		}
	}
	return strings.Join(names, ", ")
}

// own names the app's addresses.
func (s Seen) own() string {
	var names []string
	for _, a := range s.Addresses {
		network := "tcp"
		if strings.HasPrefix(a, "/") || strings.HasPrefix(a, "@") {
			network = "unix"
		}
		if name := (Socket{Net: network, Address: a}).String(); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// span is a time-out as people say it.
func span(d time.Duration) string {
	if d >= time.Second {
		d = d.Round(time.Second)
	}
	return d.String()
}
