run ->(env) { [200, {}, ["peer=#{env["REMOTE_ADDR"]}"]] }
