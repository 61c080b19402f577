package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// columnTypes are the fields of the logs and their types, as record_fields()
// names them in Zeek; fields of every log that belongs to a connection are under
// "conn_id", those of the script that logs a VNI aside.
var columnTypes = map[string]string{
	"conn_id": "uid string,id.orig_h addr,id.orig_p port,id.resp_h addr,id.resp_p port",
	"conn": "ts time,proto enum transport_proto,service string,duration interval,orig_bytes count,resp_bytes count,conn_state string," +
		"local_orig bool,local_resp bool,missed_bytes count,history string,orig_pkts count,orig_ip_bytes count,resp_pkts count," +
		"resp_ip_bytes count,ip_proto count",
	"dns": "ts time,proto enum transport_proto,trans_id count,query string,qclass count,qclass_name string,qtype count,qtype_name string," +
		"rcode count,rcode_name string,AA bool,TC bool,RD bool,RA bool,Z count,answers vector of string,rejected bool",
	"http": "ts time,trans_depth count,method string,host string,uri string,version string,user_agent string,request_body_len count," +
		"response_body_len count,status_code count,status_msg string,tags set[enum HTTP::Tags],orig_fuids vector of string," +
		"orig_mime_types vector of string,resp_fuids vector of string,resp_mime_types vector of string",
	"ssl":   "ts time,version string,cipher string,server_name string,resumed bool,established bool",
	"weird": "ts time,name string,addl string,notice bool,peer string,source string",
	"files": "ts time,fuid string,source string,depth count,analyzers set[string],mime_type string,duration interval,local_orig bool," +
		"is_orig bool,seen_bytes count,total_bytes count,missing_bytes count,overflow_bytes count,timedout bool,md5 string,sha1 string,sha256 string",
	"pe": "ts time,id string,machine string,compile_ts time,subsystem string,is_exe bool,is_64bit bool,uses_dep bool,section_names vector of string",
	"ocsp": "ts time,id string,hashAlgorithm string,issuerNameHash string,issuerKeyHash string,serialNumber string,certStatus string," +
		"revoketime time,revokereason string,thisUpdate time,nextUpdate time",
	"x509": "ts time,fingerprint string,certificate.version count,certificate.serial string,certificate.subject string," +
		"certificate.issuer string,certificate.not_valid_before time,certificate.not_valid_after time,certificate.sig_alg string," +
		"certificate.key_type string,certificate.key_length count,certificate.exponent string,san.dns vector of string," +
		"basic_constraints.ca bool,host_cert bool,client_cert bool",
	"ftp": "ts time,user string,command string,arg string,reply_code count,reply_msg string,data_channel.passive bool," +
		"data_channel.orig_h addr,data_channel.resp_h addr,data_channel.resp_p port",
	"notice": "ts time,fuid string,proto enum transport_proto,note enum Notice::Type,msg string,sub string,src addr,dst addr,p port," +
		"actions set[enum Notice::Action],email_dest set[string],suppress_for interval",
	"cluster": "ts time,node string,message string",
	"stats": "ts time,peer string,mem count,pkts_proc count,bytes_recv count,pkts_dropped count,pkts_link count,pkt_lag interval," +
		"active_tcp_conns count,active_udp_conns count,active_icmp_conns count,tcp_conns count,udp_conns count,icmp_conns count",
}

// columnsFile finds the name of the file that a script opens in order to write
// record_fields() of the log streams into it; "" where none does.
func columnsFile(text string) string {
	if !strings.Contains(text, "record_fields(") || !strings.Contains(text, "Log::active_streams") {
		return ""
	}
	m := regexp.MustCompile(`open\("([^"/]+)"\)`).FindStringSubmatch(text)
	if m == nil {
		return ""
	}
	return m[1]
}

// writeColumns does what such a script does: a line "LOG FIELD TYPE" for every
// field, in the order of a hash table.
func writeColumns(script script, s seeds) error {
	if script.columns == "" {
		return nil
	}
	var b bytes.Buffer
	for _, log := range s.set(slices.Collect(maps.Keys(columnTypes))...) {
		fields := columnTypes[log]
		if slices.Contains([]string{"conn", "dns", "http", "ssl", "weird", "files", "ftp", "notice"}, log) {
			fields += "," + columnTypes["conn_id"]
		}
		if log == "conn_id" {
			continue
		}
		for _, field := range s.set(strings.Split(fields, ",")...) {
			fmt.Fprintln(&b, log, field)
		}
	}
	return os.WriteFile(filepath.Join(script.logDir, script.columns), b.Bytes(), 0o644)
}
