cd /tmp/w/i3; PYTHONPATH=/tmp/w/i3 python -m pytest -q "$@"
