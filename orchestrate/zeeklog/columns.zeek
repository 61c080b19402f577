# What the fields of the logs are: into zeekdemo-columns.txt beside them, a line
# "LOG FIELD TYPE" for each.
function zeekdemo_columns(out: file, log: string, prefix: string, fields: record_field_table)
	{
	for ( name in fields )
		{
		local field = fields[name];
		if ( ! field$log )
			next;
		if ( /^record ./ in field$type_name )
			zeekdemo_columns(out, log, prefix + name + ".", record_fields(sub(field$type_name, /^record /, "")));
		else
			print out, fmt("%s %s%s %s", log, prefix, name, field$type_name);
		}
	}

# Last, so that every stream there is has been made.
event zeek_init() &priority=-1000
	{
	local out = open("zeekdemo-columns.txt");
	for ( id in Log::active_streams )
		{
		local stream = Log::active_streams[id];
		local log = stream?$path ? stream$path : Log::default_path_func(id, "", "");
		zeekdemo_columns(out, log, "", record_fields(stream$columns));
		}
	close(out);
	}
