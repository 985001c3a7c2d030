package systemd

import (
	"context"
	"testing"
	"time"

	"github.com/unitgen/unitgen/internal/systemd/systemdtest"
)

// testContext ends long before go test's own limit, so that a call that hangs shows its stack.
func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func endpoint(b *systemdtest.Bus) Endpoint { return Endpoint{Bus: b.Address} }
