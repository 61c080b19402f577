@load policy/frameworks/conn_key/packet_source/udp/geneve_vni
