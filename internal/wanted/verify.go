package wanted

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/fault"
	"github.com/unitgen/unitgen/internal/plan"
)

// analyzeTimeout bounds a question to systemd-analyze, which takes some 80 ms.
const analyzeTimeout = 10 * time.Second

// CheckProperties has systemd itself read the properties that are new: PID 1 would ignore what it
// does not understand, with a line in the journal.
func (m Machine) CheckProperties(ctx context.Context, p *plan.Plan) error {
	if m.Verify == nil || m.Site.Packaging || p.Was != nil && slices.Equal(p.Was.Properties, p.App.Properties) || len(p.App.Properties) == 0 {
		return nil
	}
	for _, f := range p.Files {
		if f.Name == p.App.Name.InstanceTemplate() {
			return propertyErrors(p.App, f.Text, m.Verify(ctx, m.Site.UserUnits, f.Name, f.Text))
		}
	}
	return nil
}

// verifyLine is a message of systemd-analyze verify about a line of a file.
var verifyLine = regexp.MustCompile(`(?m)^\S*@\.service:(\d+): (.*)$`)

// propertyErrors turns messages about the lines of properties into errors. Messages about settings
// that work and are going out of use are none.
func propertyErrors(a app.App, text, messages string) error {
	lines := strings.Split(text, "\n")
	var found []error
	for _, m := range verifyLine.FindAllStringSubmatch(messages, -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil || n < 1 || n > len(lines) {
			continue
		}
		i := slices.IndexFunc(a.Properties, func(p app.Property) bool { return p.Key+"="+p.Value == lines[n-1] })
		if i < 0 || strings.Contains(m[2], "please use") || strings.Contains(m[2], "deprecated") {
			continue
		}
		why, _, _ := strings.Cut(m[2], ", ignoring")
		found = append(found, fault.Input("man systemd.directives", "--property=%s is not understood by systemd: %s", lines[n-1], why))
	}
	return errors.Join(found...)
}

// VerifyUnit is what systemd-analyze says of a unit file; nothing if it cannot be asked.
func VerifyUnit(ctx context.Context, userUnits bool, name, text string) string {
	dir, err := os.MkdirTemp("", "unitgen-")
	if err != nil {
		return ""
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, analyzeTimeout)
	defer cancel()
	manager := "--system"
	if userUnits {
		manager = "--user"
	}
	cmd := exec.CommandContext(ctx, "systemd-analyze", manager, "verify", "--man=no", "--recursive-errors=no", file)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "SYSTEMD_COLORS=0", fmt.Sprintf("SYSTEMD_UNIT_PATH=%s:", dir))
	out, _ := cmd.CombinedOutput() // its status is 1 for whatever it does not find
	return string(out)
}

// IsCalendar reports whether text is a calendar expression (systemd.time(7)). It asks
// systemd-analyze, which alone knows the grammar. A machine without it can write units all the
// same.
func IsCalendar(text string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), analyzeTimeout)
	defer cancel()
	var exit *exec.ExitError
	return !errors.As(exec.CommandContext(ctx, "systemd-analyze", "calendar", "--", text).Run(), &exit)
}
