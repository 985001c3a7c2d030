package rollout

import (
	"bytes"
	"context"
	"encoding/json"
	"os/exec"
	"strings"

	"github.com/unitgen/unitgen/internal/systemd"
)

// lastLine is what the program of an invocation has logged last or, if it is still silent or running, what was logged
// about it. It is "" where that cannot be told: the journal is a help, not a need.
func lastLine(ctx context.Context, u systemd.UnitState) string {
	if u.InvocationID == "" {
		return ""
	}
	// journald is a step behind; where it cannot be waited for, what it has already must do.
	_ = exec.CommandContext(ctx, "journalctl", "--sync").Run()
	out, err := exec.CommandContext(ctx, "journalctl", "--quiet", "--no-pager", "--reverse", "--lines=20", "--output=json",
		"--output-fields=MESSAGE,SYSLOG_IDENTIFIER", "_SYSTEMD_INVOCATION_ID="+u.InvocationID).Output()
	if err != nil {
		return ""
	}
	var ours string
	for line := range bytes.Lines(out) {
		var entry struct {
			Message    any    `json:"MESSAGE"` // a string, or bytes where it is not UTF-8
			Identifier string `json:"SYSLOG_IDENTIFIER"`
		}
		if json.Unmarshal(line, &entry) != nil {
			continue
		}
		text, _ := entry.Message.(string)
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		if entry.Identifier != "lbshim" && u.ExecMainStatus != 0 {
			return cut(text)
		}
		if ours == "" {
			ours = text
		}
	}
	return cut(ours)
}

// cut keeps a line short enough for a status line.
func cut(text string) string {
	const shown = 200
	return text[:min(len(text), shown)]
}
