package steer

import "testing"

func TestSelfTest(t *testing.T) {
	needRoot(t)
	checkDescriptors(t)
	if got := SelfTest(); got != (SelfTestResult{Distribution: true, Migration: true}) {
		t.Errorf("got %+v", got)
	}
}
