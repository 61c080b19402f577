@load policy/frameworks/conn_key/packet_source/udp/${ZEEKDEMO_GENEVE_VNI:-geneve_vni}
