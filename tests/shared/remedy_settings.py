"""The settings of a host that remedies name."""

from entrostat.diagnosis import hosts, remedies
from entrostat.runs.finding import Remedy


def settings_of(host):
    values = (value if isinstance(value, tuple) else (value,) for value in vars(remedies).values())
    named = [remedy for group in values for remedy in group if isinstance(remedy, Remedy)]
    keys = {key for remedy in named for key in remedy.settings.get(host, ())}
    return keys | {names[host] for names in hosts.KNOBS.values() if host in names}
