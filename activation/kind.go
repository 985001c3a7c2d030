package activation

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Kind says what a descriptor is. It comes from the kernel, never from the name. The values read
// well after "is a".
type Kind string

const (
	StreamListener      Kind = "stream listener"      // ListenStream=, Accept=no
	SeqpacketListener   Kind = "seqpacket listener"   // ListenSequentialPacket=, Accept=no
	StreamConnection    Kind = "stream connection"    // Accept=yes, or stored
	SeqpacketConnection Kind = "seqpacket connection" // Accept=yes, or stored
	Datagram            Kind = "datagram socket"      // ListenDatagram=, connected or not
	Netlink             Kind = "netlink socket"       // ListenNetlink=
	OtherSocket         Kind = "socket of another type"
	FIFO                Kind = "fifo"           // ListenFIFO=, or an end of a pipe
	MessageQueue        Kind = "message queue"  // ListenMessageQueue=
	RegularFile         Kind = "regular file"   // ListenSpecial=, OpenFile=
	Memfd               Kind = "memfd"          // or another unlinked file of tmpfs, which is the same thing
	Device              Kind = "device"         // ListenSpecial=, character or block
	Directory           Kind = "directory"      // OpenFile=, or stored
	Other               Kind = "special object" // epoll, eventfd, pidfd, BPF map and the like
)

// mqueueMagic is the type of the mqueue file system in statfs(2), from ipc/mqueue.c; x/sys does not
// have it.
const mqueueMagic = 0x19800202

// classify sets kind, addr and protocol of d from fstat(2) and getsockopt(2).
func (d *Descriptor) classify() error {
	var stat unix.Stat_t
	if err := unix.Fstat(d.fd, &stat); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	switch stat.Mode & unix.S_IFMT {
	case unix.S_IFSOCK:
		return d.classifySocket()
	case unix.S_IFREG:
		return d.classifyRegular(stat.Nlink > 0)
	case unix.S_IFIFO:
		d.kind = FIFO
	case unix.S_IFCHR, unix.S_IFBLK:
		d.kind = Device
	case unix.S_IFDIR:
		d.kind = Directory
	default:
		d.kind = Other // anonymous inodes have no type in st_mode
	}
	return nil
}

func (d *Descriptor) classifySocket() error {
	domain, err := d.socketOption("SO_DOMAIN", unix.SO_DOMAIN)
	if err != nil {
		return err
	}
	sotype, err := d.socketOption("SO_TYPE", unix.SO_TYPE)
	if err != nil {
		return err
	}
	listening, err := d.socketOption("SO_ACCEPTCONN", unix.SO_ACCEPTCONN)
	if err != nil {
		return err
	}
	if d.protocol, err = d.socketOption("SO_PROTOCOL", unix.SO_PROTOCOL); err != nil {
		return err
	}
	if d.addr, err = localAddr(d.fd, sotype); err != nil {
		return err
	}
	d.domain = domain
	d.kind, err = d.socketKind(domain, sotype, listening != 0)
	return err
}

func (d *Descriptor) socketKind(domain, sotype int, listening bool) (Kind, error) {
	switch {
	case domain == unix.AF_NETLINK:
		return Netlink, nil
	case sotype == unix.SOCK_STREAM && listening:
		return StreamListener, nil
	case sotype == unix.SOCK_SEQPACKET && listening:
		return SeqpacketListener, nil
	case sotype == unix.SOCK_DGRAM:
		return Datagram, nil
	case sotype != unix.SOCK_STREAM && sotype != unix.SOCK_SEQPACKET:
		return OtherSocket, nil
	}
	_, err := unix.Getpeername(d.fd)
	switch {
	case errors.Is(err, unix.ENOTCONN): // never connected, or reset by the peer since
		return OtherSocket, nil
	case err != nil && !errors.Is(err, unix.EAFNOSUPPORT): // x/sys does not know the family; it has a peer
		return "", os.NewSyscallError("getpeername", err)
	case sotype == unix.SOCK_STREAM:
		return StreamConnection, nil
	default:
		return SeqpacketConnection, nil
	}
}

// classifyRegular tells apart the kinds of files that fstat(2) calls regular.
func (d *Descriptor) classifyRegular(linked bool) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(d.fd, &fs); err != nil {
		return os.NewSyscallError("fstatfs", err)
	}
	_, seals := unix.FcntlInt(uintptr(d.fd), unix.F_GET_SEALS, 0)
	switch {
	case fs.Type == mqueueMagic:
		d.kind = MessageQueue
	case fs.Type == unix.PID_FS_MAGIC || fs.Type == unix.NSFS_MAGIC:
		d.kind = Other
	case seals == nil && !linked:
		d.kind = Memfd
	default:
		d.kind = RegularFile
	}
	return nil
}

func (d *Descriptor) socketOption(name string, option int) (int, error) {
	value, err := unix.GetsockoptInt(d.fd, unix.SOL_SOCKET, option)
	if err != nil {
		return 0, os.NewSyscallError("getsockopt("+name+")", err)
	}
	return value, nil
}
