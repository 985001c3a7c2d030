package rig

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// foreign are the names of units for what no container has (disks, consoles, kernel modules, a TPM,
// an initrd) and for Debian's housekeeping. PID 1 reads all units that it has loaded again at each
// daemon-reload, of which every test needs some: these units took two thirds of its CPU time.
var foreign = []string{
	"initrd*", "systemd-pcr*", "*tpm2*", "systemd-hibernate*", "systemd-battery-check*", "systemd-bsod*", "systemd-confext*", "systemd-sysext*",
	"systemd-firstboot*", "first-boot-complete*", "systemd-fsck*", "*quotacheck*", "modprobe@*", "kmod*", "systemd-modules-load*",
	"systemd-pstore*", "systemd-random-seed*", "systemd-machine-id-commit*", "*binfmt*", "systemd-initctl*", "systemd-soft-reboot*", "soft-reboot*",
	"sys-*.mount", "dev-hugepages*", "*cryptsetup*", "*veritysetup*", "*integritysetup*", "systemd-udev*", "systemd-remount-fs*",
	"getty*.target", "getty-static*", "rescue*", "emergency*", "rc-local*", "syslog.socket", "systemd-ask-password*", "systemd-hostnamed*", "systemd-creds*",
	"ldconfig*", "systemd-hwdb*", "systemd-journal-catalog*", "systemd-update-done*", "systemd-tmpfiles-clean.timer",
	"man-db*", "fstrim*", "apt-daily*", "dpkg-db-backup*", "e2scrub*", "logrotate*",
}

// isForeign reports whether a container does without the unit, or the link to one, at path. A
// container has systemd-logind, which decodes every signal of PID 1. So it is not started at boot:
// D-Bus starts it for those who ask it.
func isForeign(path string) bool {
	dir, name := filepath.Split(path)
	if name == "systemd-logind.service" {
		return strings.HasSuffix(dir, ".wants/")
	}
	return slices.ContainsFunc(foreign, func(glob string) bool {
		matches, _ := filepath.Match(glob, name)
		return matches
	})
}

// maskGenerators hides systemd's generators, which make units of what no container has (disks,
// consoles, System V scripts): their processes are half of the CPU time of each daemon-reload.
// upper is the container's own layer.
func (c *Container) maskGenerators(upper string) error {
	generators, err := os.ReadDir(filepath.Join(c.rootfs, "usr/lib/systemd/system-generators"))
	if err != nil {
		return err
	}
	dir := filepath.Join(upper, "etc/systemd/system-generators")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for _, g := range generators {
		if err := os.Symlink("/dev/null", filepath.Join(dir, g.Name())); err != nil {
			return err
		}
	}
	return nil
}

// hideUnits hides the foreign units, except with All: then the system is whole.
func (c *Container) hideUnits(upper string) error {
	if All() {
		return nil
	}
	usr, err := os.Stat(filepath.Join(c.rootfs, "usr"))
	if err != nil {
		return err
	}
	err = filepath.WalkDir(filepath.Join(c.rootfs, "usr/lib/systemd/system"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !isForeign(path) {
			return err
		}
		hidden := filepath.Join(upper, strings.TrimPrefix(path, c.rootfs))
		if err := os.MkdirAll(filepath.Dir(hidden), 0o755); err != nil {
			return err
		}
		return os.NewSyscallError("mknod", unix.Mknod(hidden, unix.S_IFCHR, 0)) // a whiteout of overlayfs
	})
	if err != nil {
		return err
	}
	// A newer one would have systemd bring up to date what goes by it (ConditionNeedsUpdate=).
	return os.Chtimes(filepath.Join(upper, "usr"), usr.ModTime(), usr.ModTime())
}
