package activation

import "os"

// Env is the source of the service manager's settings for this process. The zero Env is the real
// process. Each field that is set replaces one part of it, for tests and for programs that carry
// descriptors over an exec.
type Env struct {
	Lookup  func(key string) (value string, ok bool) // nil: os.LookupEnv
	Unset   func(key string) error                   // nil: os.Unsetenv
	PID     int                                      // 0: os.Getpid
	FirstFD int                                      // 0: 3, SD_LISTEN_FDS_START
}

func (e Env) lookup(key string) (string, bool) {
	if e.Lookup == nil {
		return os.LookupEnv(key)
	}
	return e.Lookup(key)
}

func (e Env) unset(key string) error {
	if e.Unset == nil {
		return os.Unsetenv(key)
	}
	return e.Unset(key)
}

func (e Env) pid() int {
	if e.PID == 0 {
		return os.Getpid()
	}
	return e.PID
}

func (e Env) firstFD() int {
	if e.FirstFD == 0 {
		return 3
	}
	return e.FirstFD
}
