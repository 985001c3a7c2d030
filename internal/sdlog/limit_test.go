package sdlog

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := Limited(slog.New(NewStream("lbshim", &out, slog.LevelInfo)))
		of := log.With("instance", 3)
		for range 50 {
			log.Warn("channel refused")
			of.Warn("program may not listen")
		}
		if n := strings.Count(out.String(), "\n"); n != 10 {
			t.Errorf("100 lines at once become %d, want 10", n)
		}
		out.Reset()
		time.Sleep(10 * time.Second)
		of.Warn("once more")
		of.Warn("and again")
		if want := "once more instance=3 suppressed=90\n"; !strings.HasSuffix(out.String(), want) || strings.Count(out.String(), "\n") != 1 {
			t.Errorf("ten seconds later it says %q, want one line that ends in %q", out.String(), want)
		}
	})
}
