package transmit

// Spread returns n processors to pin as many senders to, each as different from
// the others, and from those of other senders that run, as there are processors.
func Spread(n int) []CPU { return spread(n) }
