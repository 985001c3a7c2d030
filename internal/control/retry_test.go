package control

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func TestRetryOutlivesAShimThatComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		err := Retry(t.Context(), func() error {
			if tries++; tries < 5 {
				return fmt.Errorf("connect to shim: %w", unix.ECONNREFUSED)
			}
			return nil
		})
		if err != nil || tries != 5 {
			t.Errorf("%d tries, error %v", tries, err)
		}
	})
}

func TestRetryTakesARefusalForAnAnswer(t *testing.T) {
	tries := 0
	refused := &Error{Name: ErrNoSuchInstance}
	if err := Retry(t.Context(), func() error { tries++; return refused }); !errors.Is(err, refused) || tries != 1 {
		t.Errorf("%d tries, error %v", tries, err)
	}
}

func TestRetryEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := Retry(ctx, func() error { return unix.ENOENT }); !errors.Is(err, unix.ENOENT) {
			t.Errorf("error %v, want the last one of the call", err)
		}
	})
}
