package sys

// Memory is how much main memory the machine has, in bytes; where that is not known,
// as much as any has that this runs on: 4 GiB.
func Memory() int64 {
	if n := memory(); n > 0 {
		return n
	}
	return 4 << 30
}
