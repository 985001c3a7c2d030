package sockdiag

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func header(size uint32, typ uint16, seq uint32) []byte {
	var b []byte
	b = binary.NativeEndian.AppendUint32(b, size)
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_MULTI)
	b = binary.NativeEndian.AppendUint32(b, seq)
	return binary.NativeEndian.AppendUint32(b, 0)
}

func message(typ uint16, seq uint32, body ...byte) []byte {
	return append(header(uint32(unix.SizeofNlMsghdr+len(body)), typ, seq), body...)
}

func attribute(typ uint16, value ...byte) []byte {
	var b []byte
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofNlAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, value...)
	return append(b, make([]byte, align(len(b))-len(b))...)
}

func TestScan(t *testing.T) {
	base := make([]byte, msgLen)
	base[msgState] = 1
	base[msgPort], base[msgPort+1] = 0x0b, 0xb8
	binary.NativeEndian.PutUint32(base[msgCookie:], 5)
	binary.NativeEndian.PutUint32(base[msgCookie+4:], 1)
	cgroup := attribute(attrCgroup, binary.NativeEndian.AppendUint64(nil, 77)...)
	short := attribute(attrInfo, make([]byte, 20)...)
	sock := slices.Concat(base, attribute(99, 1), cgroup, short)
	errno := func(e unix.Errno) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(-int32(e))) }

	for _, tc := range []struct {
		name  string
		in    []byte
		socks int
		done  bool
		err   error
	}{
		{"nothing", nil, 0, false, nil},
		{"two and the end", slices.Concat(message(18, 7, sock...), message(20, 7, sock...), message(unix.NLMSG_DONE, 7, 0, 0, 0, 0)), 2, true, nil},
		{"left over", slices.Concat(message(18, 6, sock...), message(unix.NLMSG_DONE, 6, 0, 0, 0, 0), message(18, 7, sock...)), 1, false, nil},
		{"event", message(20, 0, sock...), 0, false, nil},
		{"refused", message(unix.NLMSG_ERROR, 7, errno(unix.EINVAL)...), 0, true, unix.EINVAL},
		{"failed", message(unix.NLMSG_DONE, 7, errno(unix.ENOBUFS)...), 0, true, unix.ENOBUFS},
		{"short header", header(16, 18, 7)[:15], 0, false, errMalformed},
		{"too long", header(17, 18, 7), 0, false, errMalformed},
		{"huge", header(0xffffffff, 18, 7), 0, false, errMalformed},
		{"no length", header(0, 18, 7), 0, false, errMalformed},
		{"short socket", message(18, 7, base[:71]...), 0, false, errMalformed},
		{"attribute without length", message(18, 7, append(slices.Clone(base), 0, 0, 0, 0)...), 0, false, errMalformed},
		{"attribute too long", message(18, 7, append(slices.Clone(base), 9, 0, 0, 0, 0, 0, 0, 0)...), 0, false, errMalformed},
		{"short cgroup", message(18, 7, append(slices.Clone(base), attribute(attrCgroup, 1, 2, 3, 4)...)...), 0, false, errMalformed},
		{"no status", message(unix.NLMSG_DONE, 7), 0, true, errMalformed},
		{"unknown type", message(99, 7), 0, false, errMalformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			socks := 0
			done, err := scan(tc.in, 7, func(s *socket) error {
				socks++
				if s.state != 1 || s.port != 3000 || s.cookie != 5+1<<32 || s.cgroup != 77 || !s.hasCgroup || s.hasInfo {
					t.Errorf("got %+v", *s)
				}
				return nil
			})
			if socks != tc.socks || done != tc.done || !errors.Is(err, tc.err) {
				t.Errorf("got %d sockets, done %v, %v; want %d, %v, %v", socks, done, err, tc.socks, tc.done, tc.err)
			}
		})
	}
}

// FuzzScan: no input makes the parser panic, loop, or hand out a socket that was not there.
func FuzzScan(f *testing.F) {
	sock := append(make([]byte, msgLen), attribute(attrCgroup, 1, 2, 3, 4, 5, 6, 7, 8)...)
	f.Add(slices.Concat(message(18, 7, sock...), message(unix.NLMSG_DONE, 7, 0, 0, 0, 0)))
	f.Add(message(20, 7, append(sock, attribute(attrInfo, make([]byte, 248)...)...)...))
	f.Add(message(unix.NLMSG_ERROR, 7, 0xea, 0xff, 0xff, 0xff))
	f.Add(header(0, 18, 7))
	f.Fuzz(func(t *testing.T, b []byte) {
		socks := 0
		_, _ = scan(b, 7, func(s *socket) error {
			socks++
			var st Stat
			st.add(s, DefaultQuiet)
			if st.Open != 1 || st.Queued+st.Busy+st.Unsure+st.Quiet() != 1 {
				t.Errorf("%+v is %+v", *s, st)
			}
			return nil
		})
		if socks > len(b)/(unix.SizeofNlMsghdr+msgLen) {
			t.Errorf("%d sockets in %d bytes", socks, len(b))
		}
	})
}

// FuzzBytecode: the kernel's audit accepts what we build, for any ports and cgroup.
func FuzzBytecode(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4}, uint64(0))
	f.Add([]byte{0xff, 0xff}, uint64(1))
	f.Fuzz(func(t *testing.T, b []byte, cgroup uint64) {
		var ports []uint16
		for ; len(b) >= 2 && len(ports) < MaxPorts; b = b[2:] {
			if p := binary.BigEndian.Uint16(b); p != 0 {
				ports = append(ports, p)
			}
		}
		if len(ports) == 0 {
			return
		}
		fd, err := Open()
		if err != nil {
			t.Fatal(err)
		}
		c, err := New(fd)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Count(Filter{Ports: ports, Cgroup: cgroup}); err != nil {
			t.Errorf("%v, cgroup %d: %v", ports, cgroup, err)
		}
	})
}
