package explain

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/unitgen/unitgen/internal/app"
)

// judge returns why one run failed; the zero Reason if it did not fail, or the reason is unknown.
func (c *caseFile) judge(ctx context.Context, in *invocation) Reason {
	for _, f := range []func(context.Context, *invocation) Reason{c.notStarted, c.bound, c.refusedBySandbox, c.killed, c.notReady, c.exited} {
		if r := f(ctx, in); r.What != "" {
			return r
		}
	}
	return Reason{}
}

// killed explains a program that did not end by itself.
func (c *caseFile) killed(_ context.Context, in *invocation) Reason {
	said := telling(in.said)
	if in.result == "oom-kill" || in.exitCode == "killed" && in.exitStatus == "9" && c.state.Result == "oom-kill" {
		if c.set.memoryMax == 0 {
			return Reason{What: "the kernel killed the program, as the machine has no memory left", Said: said, Hint: c.options("--max-memory=SIZE")}
		}
		return Reason{
			What: fmt.Sprintf("the kernel killed the program, as it needs more memory than MemoryMax=%s", app.Size(c.set.memoryMax)),
			Said: said, Hint: c.options("--max-memory=%s", app.Size(2*c.set.memoryMax)),
		}
	}
	if in.result == "watchdog" {
		return Reason{What: "the program did not send WATCHDOG=1 in time", Said: said, Hint: c.options("--watchdog=")}
	}
	if in.result == "timeout" && in.seen == nil {
		return c.timeout(said)
	}
	if in.exitCode != "killed" && in.exitCode != "dumped" || in.seen != nil && in.seen.Outcome != Ended {
		return Reason{} // PID 1 killed it, after what Seen tells
	}
	signal := in.exitStatus
	if n, err := strconv.Atoi(signal); err == nil {
		signal = signalName(n)
	}
	switch signal {
	case "SYS":
		return Reason{What: "the sandbox killed the program at a system call that it refuses (SystemCallFilter=)", Said: said,
			Hint: c.options("-p SystemCallErrorNumber=EPERM")}
	case "TERM", "INT", "HUP":
		return Reason{What: "somebody ended the program by signal " + signal, Said: said}
	}
	r := Reason{What: "the program crashed by signal " + signal, Said: said}
	if c.set.noExec {
		r.What += "; if it makes machine code while it runs, that is what the sandbox refuses"
		r.Hint = c.options("-p MemoryDenyWriteExecute=no")
	}
	return r
}

// timeout explains a start that PID 1 ended: nothing around the program waits for it then, but PID
// 1 itself.
func (c *caseFile) timeout(said string) Reason {
	limit := span(c.set.app.StartTimeoutOrDefault())
	if c.set.app.ReadyOrDefault() == app.ReadyNotify {
		return Reason{What: "the program did not send READY=1 (sd_notify(3)) within " + limit, Said: said, Hint: c.options("--ready=listen")}
	}
	return Reason{What: "the program was not started within " + limit, Said: said, Hint: c.options("--start-timeout=%s", app.FormatTimeSpan(3*c.set.app.StartTimeoutOrDefault()))}
}

// notReady explains a program that ran and was not ready in time, from what the waiting command
// saw.
func (c *caseFile) notReady(_ context.Context, in *invocation) Reason {
	if in.seen == nil || in.seen.Outcome == Ended {
		return Reason{}
	}
	r := Reason{What: in.seen.String(), Said: telling(in.said)}
	switch {
	case in.seen.Outcome == NotAccepted:
		r.Hint = c.instead(*in.seen)
	case strings.HasPrefix(in.seen.Text, "check GET "):
		r.Hint = c.options("--ready=http:/PATH")
	case strings.Contains(in.seen.Text, "does not ask for connections"):
		r.Hint = c.options("--kind=listen --path=steer")
	case strings.Contains(in.seen.Text, "process.send('ready')"):
		r.Hint = c.options("--ready=node")
	}
	return r
}

// instead is the option for a program that does something else than to accept.
func (c *caseFile) instead(s Seen) string {
	if s.BindingHint != "" {
		return s.BindingHint
	}
	for _, o := range s.Sockets {
		if o.Net == "tcp" && !o.Waits && o.port() != 0 && c.answersBind() {
			options := c.options("--program-port=%d", o.port())
			if own := c.set.app.Listen; len(own) == 1 && !own[0].Addr.IsValid() && !strings.HasPrefix(o.Address, "[") {
				options += fmt.Sprintf(" --listen=0.0.0.0:%d", own[0].Port) // a port alone is one of IPv6
			}
			return options
		}
	}
	if len(s.Sockets) == 0 || s.Sockets[0].Waits {
		return c.options("--start-timeout=%s", app.FormatTimeSpan(3*c.set.app.StartTimeoutOrDefault()))
	}
	return ""
}

// answersBind reports whether the program's bind() is answered with the app's listener.
func (c *caseFile) answersBind() bool {
	return c.set.app.Kind == app.KindNode || c.set.app.BindAnswered()
}

// bound explains a program that ended for a reason that its supervisor has reported.
func (c *caseFile) bound(_ context.Context, in *invocation) Reason {
	if !in.exited() {
		return Reason{}
	}
	what, hint := in.bound.Problem(string(c.App), nil)
	if what == "" {
		return Reason{}
	}
	return Reason{What: what, Said: telling(in.said), Hint: hint}
}

// exited explains a program that ended by itself, for no reason that the sandbox has to do with.
func (c *caseFile) exited(_ context.Context, in *invocation) Reason {
	said := telling(in.said)
	switch {
	case in.exitCode == "exited":
		return c.exitedWith(in, said)
	case in.result == "start-limit-hit":
		return Reason{} // a run before it says why
	case in.before != "":
		return Reason{What: "a command of ExecStartPre= ended with exit status " + in.before, Said: said}
	case in.exited():
		return Reason{What: "the program ended with exit status 0; a program that goes to the background needs its option to stay in the foreground", Said: said}
	case len(in.pid1) > 0:
		return Reason{What: in.pid1[0], Said: said}
	}
	return Reason{}
}

func (c *caseFile) exitedWith(in *invocation, said string) Reason {
	r := Reason{What: "the program ended with exit status " + in.exitStatus, Said: said}
	if said == "" {
		r.What += " and said nothing"
		return r
	}
	switch {
	case strings.HasPrefix(said, "ModuleNotFoundError:"):
		r.What += ", as a Python module is missing; it may need the python of its virtual environment"
		r.Hint = c.options("-- VENV/bin/python ...")
	case strings.HasPrefix(said, "Error: Cannot find module"):
		r.What += ", as a Node.js module is missing"
		r.Hint = "npm ci"
	}
	return r
}
