package process

import (
	"context"
	"errors"
	"os/exec"
	"testing"
)

func TestContextEndsWithTheProcess(t *testing.T) {
	program := exec.Command("cat")
	in, err := program.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := Context(t.Context(), program.Process.Pid)
	defer stop()
	if err := ctx.Err(); err != nil {
		t.Errorf("%v while it runs", err)
	}
	in.Close()
	<-ctx.Done()
	program.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, ErrEnded) {
		t.Errorf("cause %v, want %v", cause, ErrEnded)
	}
}

func TestProcessThatIsGoneEndsTheContextAtOnce(t *testing.T) {
	program := exec.Command("true")
	if err := program.Run(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := Context(t.Context(), program.Process.Pid)
	defer stop()
	if cause := context.Cause(ctx); !errors.Is(cause, ErrEnded) {
		t.Errorf("cause %v, want %v", cause, ErrEnded)
	}
}
