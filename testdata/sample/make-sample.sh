#!/bin/bash
# Makes the embedded sample: a capture of real clients talking to real servers.
#
#   sudo testdata/sample/make-sample.sh [FILE]      (default: assets/samples/sample.pcap)
#   go test ./assets/samples -update                (rewrites connections.tsv from it)
#
# Three network namespaces of this machine, a client, a router and a server, are
# joined by veth pairs with an MTU of 1500 and every offload switched off, so
# that frames have the length and the checksums they would have on a cable.
# tcpdump listens on the client's interface. All names end in .test (RFC 6761),
# all addresses are documentation ranges (RFC 5737, RFC 3849); nothing leaves
# the machine.
#
#     client 192.0.2.10 ── 192.0.2.1 router 198.51.100.1 ── server 198.51.100.{22,53,80,123}
#     2001:db8:1::10 ── 2001:db8:1::1       2001:db8:2::1 ── 2001:db8:2::{22,53,80,123}
#
# Neighbour discovery and multicast listener reports (ICMPv6) are left out of
# the capture: when and how often a kernel sends them is its own affair, and
# Zeek counts each as a connection. ARP stays in; Zeek makes no connection of it.
#
# Ports, times and keys differ from run to run; which connections there are, and
# what Zeek says about them, does not.
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin LC_ALL=C
unset http_proxy https_proxy HTTPS_PROXY all_proxy ALL_PROXY

here=$(cd "$(dirname "$0")" && pwd)
out=$(realpath -m "${1:-$here/../../assets/samples/sample.pcap}")
max_bytes=400000
max_seconds=12 # a replay at the recorded pace takes as long

ns_c=zdsample-client ns_r=zdsample-router ns_s=zdsample-server
work='' made_run_sshd='' pids=()

die() { echo "make-sample: $*" >&2; exit 1; }

# need says which Debian package brings each program that is missing.
need() {
	local missing=() entry
	for entry in ip:iproute2 tc:iproute2 ss:iproute2 ethtool:ethtool tcpdump:tcpdump dnsmasq:dnsmasq-base \
		dig:bind9-dnsutils nginx:nginx-light curl:curl openssl:openssl sshd:openssh-server \
		ssh:openssh-client ping:iputils-ping chronyd:chrony ntpdig:ntpsec-ntpdig; do
		command -v "${entry%%:*}" >/dev/null || missing+=("${entry##*:}")
	done
	((${#missing[@]} == 0)) || die "programs are missing; install them with: apt-get install --no-install-recommends ${missing[*]}"
}

# cleanup ends what was started and removes what was made, whatever happened.
cleanup() {
	local status=$? pid ns
	trap - EXIT INT TERM
	for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
	for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
	for ns in $ns_c $ns_r $ns_s; do # all of their processes are ours
		ip netns pids "$ns" 2>/dev/null | xargs -r kill 2>/dev/null || true
		ip netns del "$ns" 2>/dev/null || true
		rm -rf "/etc/netns/$ns"
	done
	rmdir /etc/netns 2>/dev/null || true # only if nobody else keeps anything there
	[[ -z $made_run_sshd ]] || rmdir /run/sshd 2>/dev/null || true
	if ((status != 0)) && [[ -n $work ]]; then tail -n 20 "$work"/*.log >&2 2>/dev/null || true; fi
	[[ -z $work ]] || rm -rf "$work"
	exit "$status"
}

# link NS_A DEV_A MAC_A NS_B DEV_B MAC_B joins two namespaces by a veth pair.
link() {
	ip -n "$1" link add "$2" address "$3" mtu 1500 type veth \
		peer name "$5" address "$6" mtu 1500 netns "$4"
	tune "$1" "$2"
	tune "$4" "$5"
}

# tune NS DEV switches the offloads off and brings the device up.
tune() {
	ip netns exec "$1" ethtool -K "$2" rx off tx off sg off tso off gso off gro off >/dev/null
	ip netns exec "$1" sysctl -qw "net.ipv6.conf.$2.accept_dad=0" "net.ipv6.conf.$2.accept_ra=0"
	ip -n "$1" link set "$2" up
}

network() {
	local ns host
	for ns in $ns_c $ns_r $ns_s; do
		ip netns add "$ns"
		ip -n "$ns" link set lo up
	done
	link $ns_c eth0 02:00:5e:00:02:10 $ns_r lan0 02:00:5e:00:02:01
	link $ns_r srv0 02:00:5e:00:64:01 $ns_s eth0 02:00:5e:00:64:80

	ip -n $ns_c addr add 192.0.2.10/24 dev eth0
	ip -n $ns_c addr add 2001:db8:1::10/64 dev eth0
	ip -n $ns_r addr add 192.0.2.1/24 dev lan0
	ip -n $ns_r addr add 2001:db8:1::1/64 dev lan0
	ip -n $ns_r addr add 198.51.100.1/24 dev srv0
	ip -n $ns_r addr add 2001:db8:2::1/64 dev srv0
	for host in 22 53 80 123; do
		ip -n $ns_s addr add "198.51.100.$host/24" dev eth0
		ip -n $ns_s addr add "2001:db8:2::$host/64" dev eth0
	done
	ip netns exec $ns_r sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
	ip -n $ns_c route add default via 192.0.2.1
	ip -n $ns_c -6 route add default via 2001:db8:1::1
	ip -n $ns_s route add default via 198.51.100.1
	ip -n $ns_s -6 route add default via 2001:db8:2::1
	ip -n $ns_r route add blackhole 203.0.113.0/24 # swallowed without an answer
	# An access line of 20 Mbit/s down and 5 Mbit/s up: without it a download is
	# one burst at memory speed, which no cable shows and an untuned socket loses.
	ip netns exec $ns_r tc qdisc add dev lan0 root tbf rate 20mbit burst 3200 limit 200000
	ip netns exec $ns_c tc qdisc add dev eth0 root tbf rate 5mbit burst 3200 limit 200000

	mkdir -p /etc/netns/$ns_c # "ip netns exec" shows it to the client as /etc/resolv.conf
	echo 'nameserver 198.51.100.53' >/etc/netns/$ns_c/resolv.conf
}

# serve NAME COMMAND... starts a server; its output goes to a log of its own.
serve() {
	local name=$1
	shift
	ip netns exec $ns_s "$@" >"$work/$name.log" 2>&1 &
	pids+=($!)
}

# eventually COMMAND... repeats it until it succeeds, for ten seconds at most.
eventually() {
	local i
	for ((i = 0; i < 100; i++)); do
		if "$@" >/dev/null 2>&1; then return; fi
		sleep 0.1
	done
	die "nothing came of: $*"
}

# listens PROTO PORT asks the server's kernel for a socket (t or u, v4 or v6).
listens() { ip netns exec $ns_s ss -Hln"$1" "sport = :$2" | grep -q .; }

dns_server() {
	local long
	long=$(printf 'zeek%.0s ' {1..40})
	cat >"$work/dnsmasq.conf" <<-CONF
		listen-address=198.51.100.53,2001:db8:2::53
		bind-interfaces
		no-resolv
		no-hosts
		local=/test/
		local=/arpa/
		local-ttl=300
		host-record=www.example.test,198.51.100.80,2001:db8:2::80
		host-record=ssh.example.test,198.51.100.22,2001:db8:2::22
		host-record=ntp.example.test,198.51.100.123,2001:db8:2::123
		host-record=mail.example.test,198.51.100.25
		cname=download.example.test,www.example.test
		cname=secure.example.test,www.example.test
		mx-host=example.test,mail.example.test,10
		txt-record=example.test,"v=spf1 mx -all"
		txt-record=long.example.test,"$long","$long","$long","$long"
	CONF
	serve dnsmasq dnsmasq --keep-in-foreground --user=nobody --conf-file="$work/dnsmasq.conf" --log-facility=-
	eventually listens u 53
}

# content makes the files to be served: the same bytes in every run.
content() {
	mkdir "$work/www"
	{
		echo '<!DOCTYPE html><html lang="en"><head><title>Example</title>'
		echo '<link rel="stylesheet" href="/style.css"></head><body><h1>Flows</h1><table>'
		awk 'BEGIN { for (i = 1; i <= 80; i++) printf "<tr><td>%d</td><td>%d</td></tr>\n", i, i * i }'
		echo '</table><p><a href="/flows.csv.gz">flows.csv.gz</a></p></body></html>'
	} >"$work/www/index.html"
	awk 'BEGIN { for (i = 0; i < 30; i++) printf "td:nth-child(%d) { padding: %dpx; text-align: right }\n", i, i }' \
		>"$work/www/style.css"
	# A linear congruential generator stands for measurements.
	awk 'BEGIN {
		x = 20240229
		print "time,bytes,packets"
		for (i = 0; i < 9400; i++) { x = (x * 16807) % 2147483647; printf "%d,%d,%d\n", i, x % 100000, x % 97 }
	}' | gzip -9n >"$work/www/flows.csv.gz"
}

# certificates makes a certificate authority of our own and the server's certificate.
certificates() {
	(
		cd "$work"
		openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj '/O=Example/CN=Example Test CA' \
			-keyout ca.key -out ca.pem
		openssl req -newkey rsa:2048 -nodes -subj '/O=Example/CN=secure.example.test' \
			-keyout server.key -out server.csr
		openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3649 -out server.pem \
			-extfile <(echo 'subjectAltName=DNS:secure.example.test,DNS:www.example.test')
		cat ca.pem >>server.pem
	) >"$work/openssl.log" 2>&1
}

web_server() {
	content
	certificates
	chmod 755 "$work" # nginx's workers are nobody
	cat >"$work/nginx.conf" <<-CONF
		user nobody nogroup;
		daemon off;
		worker_processes 1;
		pid $work/nginx.pid;
		error_log stderr;
		events { worker_connections 64; }
		http {
			access_log off;
			types { text/html html; text/css css; application/gzip gz; }
			client_body_temp_path $work/body;
			server {
				listen 198.51.100.80:80;
				listen [2001:db8:2::80]:80;
				listen 198.51.100.80:443 ssl;
				listen [2001:db8:2::80]:443 ssl;
				ssl_certificate $work/server.pem;
				ssl_certificate_key $work/server.key;
				ssl_protocols TLSv1.2 TLSv1.3;
				ssl_session_tickets off;
				root $work/www;
				location = /login { add_header Set-Cookie "session=sample"; return 303 /; }
			}
		}
	CONF
	serve nginx nginx -c "$work/nginx.conf" -e stderr
	eventually listens t 443
}

ssh_server() {
	if [[ ! -d /run/sshd ]]; then mkdir -m 755 /run/sshd && made_run_sshd=yes; fi
	ssh-keygen -q -t ed25519 -N '' -C server -f "$work/host"
	ssh-keygen -q -t ed25519 -N '' -C client -f "$work/user"
	echo "ssh.example.test $(cut -d' ' -f1,2 "$work/host.pub")" >"$work/known_hosts"
	cat >"$work/sshd_config" <<-CONF
		ListenAddress 198.51.100.22
		HostKey $work/host
		AuthorizedKeysFile $work/user.pub
		PidFile none
		StrictModes no
		UsePAM no
		PasswordAuthentication no
		PermitRootLogin prohibit-password
	CONF
	serve sshd "$(command -v sshd)" -D -e -f "$work/sshd_config"
	eventually listens t 22
}

time_server() {
	cat >"$work/chrony.conf" <<-CONF
		local stratum 3
		allow all
		bindaddress 198.51.100.123
		cmdport 0
		bindcmdaddress /
		pidfile $work/chronyd.pid
	CONF
	serve chronyd chronyd -x -d -u root -f "$work/chrony.conf" # -x: keeps its hands off the clock
	eventually listens u 123
}

# capture starts tcpdump and returns when it listens.
capture() {
	ip netns exec $ns_c tcpdump -Z root -i eth0 -s 0 -B 8192 -w "$work/sample.pcap" \
		'not (ip6 and (ip6[6] = 0 or (ip6[6] = 58 and ip6[40] >= 130)))' 2>"$work/tcpdump.log" &
	tcpdump=$!
	pids+=("$tcpdump")
	eventually grep -q 'listening on' "$work/tcpdump.log"
}

# finish lets the last packets reach the file, and checks that tcpdump missed none.
finish() {
	sleep 0.5
	kill "$tcpdump"
	wait "$tcpdump" || die "tcpdump failed"
	grep -q '^0 packets dropped by kernel' "$work/tcpdump.log" || die "tcpdump lost packets"
}

# client COMMAND... runs it on the client's side, then pauses as a person would.
client() {
	echo "+ $*"
	ip netns exec $ns_c "$@" >"$work/client.log" 2>&1 || die "failed: $*"
	sleep 0.1
}

# refused is a client whose failure is what we are after.
refused() {
	echo "+ $* (to fail)"
	if ip netns exec $ns_c "$@" >"$work/client.log" 2>&1; then die "should have failed: $*"; fi
	sleep 0.1
}

web() { client curl -q -sS --max-time 5 -o /dev/null "$@"; }

# traffic is the sample. The README beside the capture describes each line of it.
traffic() {
	local dns4=@198.51.100.53 dns6=@2001:db8:2::53 ca=$work/ca.pem

	client ping -n -c 3 -i 0.2 198.51.100.80
	client ping -n -c 3 -i 0.2 2001:db8:2::80

	client dig -r $dns4 www.example.test A
	client dig -r $dns4 www.example.test AAAA
	client dig -r $dns6 www.example.test AAAA
	client dig -r $dns4 download.example.test A
	client dig -r $dns4 example.test MX
	client dig -r $dns6 example.test TXT
	client dig -r $dns4 missing.example.test A
	client dig -r $dns4 +tcp www.example.test A
	client dig -r $dns6 +tcp example.test MX
	client dig -r $dns4 +noedns long.example.test TXT # does not fit: asks again over TCP
	refused dig -r +tries=1 +time=1 @198.51.100.80 www.example.test A # no DNS server there

	client ntpdig -4 -t 2 ntp.example.test

	web -4 http://www.example.test/ -o /dev/null http://www.example.test/style.css
	web -4 http://download.example.test/flows.csv.gz
	web -6 http://www.example.test/flows.csv.gz
	web -4 http://www.example.test/missing.html
	web -4 --data 'user=alice&password=sample' http://www.example.test/login
	web -6 http://www.example.test/

	web -4 --cacert "$ca" --tls-max 1.2 https://secure.example.test/
	web -4 --cacert "$ca" --tlsv1.3 https://secure.example.test/
	web -6 --cacert "$ca" --tlsv1.3 https://secure.example.test/style.css

	client ssh -4 -F none -i "$work/user" -o IdentitiesOnly=yes -o IdentityAgent=none -o BatchMode=yes \
		-o UserKnownHostsFile="$work/known_hosts" -o GlobalKnownHostsFile=/dev/null \
		root@ssh.example.test 'seq 2000'

	refused curl -q -sS -4 --connect-timeout 2 http://www.example.test:8080/ # nobody listens
	refused curl -q -sS --connect-timeout 1.5 http://203.0.113.9/            # nobody answers
}

# publish writes the file in its final place: plain pcap, microseconds, Ethernet.
publish() {
	local bytes
	bytes=$(stat -c %s "$work/sample.pcap")
	((bytes < max_bytes)) || die "the capture has $bytes bytes, $max_bytes at most"
	mkdir -p "$(dirname "$out")"
	install -m 644 "$work/sample.pcap" "$out"
	echo "wrote $out: $bytes bytes"
}

((EUID == 0)) || die "needs root, for network namespaces"
need
for ns in $ns_c $ns_r $ns_s; do
	[[ ! -e /run/netns/$ns ]] || die "namespace $ns exists already: another run is under way, or remove it with: ip netns del $ns"
done
trap cleanup EXIT
trap 'exit 130' INT TERM
work=$(mktemp -d /tmp/zdsample.XXXXXX)
network
dns_server
web_server
ssh_server
time_server
capture
SECONDS=0
traffic
((SECONDS < max_seconds)) || die "the traffic took $SECONDS seconds, $max_seconds at most: this machine is busy, run it again"
finish
publish
