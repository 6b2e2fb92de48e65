std = 'lua51'
read_globals = {'redis', 'cjson', 'KEYS', 'ARGV'}
codes = true
color = false
max_line_length = false
