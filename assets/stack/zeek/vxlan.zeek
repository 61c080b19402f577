@load policy/frameworks/conn_key/packet_source/udp/vxlan_vni
