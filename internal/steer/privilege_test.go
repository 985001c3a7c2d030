package steer

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// childEnv says to a re-executed test binary that it may use BPF though it is not root.
const childEnv = "UNITGEN_STEER_CHILD"

// runAs runs tests of this binary as uid nobody with the given capabilities and no others.
func runAs(t *testing.T, tests, env string, capabilities ...uintptr) {
	t.Helper()
	needRoot(t)
	if os.Getenv(childEnv) != "" {
		t.Skip("is the child already")
	}
	// By this name the binary is found also where nobody may not look.
	child := exec.Command("/proc/self/exe", "-test.run="+tests, "-test.v")
	child.Env = append(os.Environ(), childEnv+"="+env)
	child.SysProcAttr = &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: 65534, Gid: 65534},
		AmbientCaps: capabilities,
	}
	out, err := child.CombinedOutput()
	if err != nil {
		t.Errorf("as nobody with capabilities %v: %v\n%s", capabilities, err, out)
	}
	t.Logf("%s", out)
}

func TestUnprivilegedClassic(t *testing.T) { runAs(t, "^TestClassic", "classic") }

func TestCapBPFIsEnough(t *testing.T) {
	runAs(t, "^(TestSpread|TestDual|TestWeights|TestParking|TestRescue|TestClosing|TestRefuse|TestAdopt|TestRecovery|TestSelfTest|TestGuard|TestInstance|TestResume|TestSourceHash)",
		"bpf", unix.CAP_BPF)
}

func TestCapNetAdminIsEnoughToCount(t *testing.T) {
	runAs(t, "^(TestLeast|TestCount|TestRandomTwo)", "bpf", unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_NET_RAW) // RAW for the test's own SYNs
}

// Without privilege the error must name the load, so that the shim can say why it falls back.
func TestUnprivilegedGroupFails(t *testing.T) {
	if os.Getenv(childEnv) != "none" {
		runAs(t, "^TestUnprivilegedGroupFails$", "none")
		return
	}
	s := newSite(t, "127.0.0.1", 0)
	if _, err := New(s.listeners[0], func(Maps) error { return nil }); err == nil {
		t.Error("new group without privilege: no error")
	} else {
		t.Log(err)
	}
	if got := SelfTest(); got.Distribution || got.Migration || got.Reason == "" {
		t.Errorf("self test without privilege: %+v", got)
	}
}
