package channel

import (
	"fmt"
	"net"
	"time"

	"github.com/unitgen/unitgen/internal/pace"
)

// Everybody on the host may connect to the channel socket, and for each connection PID 1 is asked
// who that is. So many may one user make at a time, as all instances of an app may start at once,
// and then ten a second.
const (
	admitBurst = 600
	admitEvery = 100 * time.Millisecond
)

// maxUsers bounds the users that are told apart. Others share one allowance: a user who has many
// others in a user namespace holds up those, and nobody who has been here within a minute.
const maxUsers = 256

// admission says who may be asked for. It is for one goroutine.
type admission struct {
	users map[uint32]*pace.Bucket
	rest  pace.Bucket
}

func newAdmission() *admission {
	return &admission{users: make(map[uint32]*pace.Bucket), rest: pace.Bucket{Burst: admitBurst, Every: admitEvery}}
}

// admit fails for a peer whose user has made too many connections.
func (a *admission) admit(conn *net.UnixConn, now time.Time) error {
	uid, err := peerUser(conn)
	if err != nil {
		return err
	}
	if !a.of(uid, now).Take(now) {
		return fmt.Errorf("user %d connects too often", uid)
	}
	return nil
}

func (a *admission) of(uid uint32, now time.Time) *pace.Bucket {
	if b := a.users[uid]; b != nil {
		return b
	}
	if len(a.users) >= maxUsers {
		for other, b := range a.users {
			if b.Full(now) {
				delete(a.users, other)
			}
		}
	}
	if len(a.users) >= maxUsers {
		return &a.rest
	}
	b := &pace.Bucket{Burst: admitBurst, Every: admitEvery}
	a.users[uid] = b
	return b
}
