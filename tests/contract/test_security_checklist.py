"""The checklist of the front door: which tests prove which item, and that these tests are there.

Two items are weaker than on the list that they come from: by default a loopback port is open (1), and calls
need tokens only where there is a token file (5). Items 15 to 17 are about pages for browsers, of which the
API has none: it answers browsers with an error.
"""

from __future__ import annotations

import re
from pathlib import Path

_SECURITY = "e2e/test_security.py"
_IMPORTS = (
    "e2e/test_imports_from_anywhere.py::test_hostile_packages_start_nothing_call_nobody_and_leave_nothing"
)
_PAGES = f"{_SECURITY}::test_browsers_get_no_pages"
CHECKLIST = {
    "1 only a loopback port is open after a default start": [
        f"{_SECURITY}::test_a_default_start_listens_on_loopback_only"
    ],
    "2 0.0.0.0 without TLS: exit code 78": [
        f"{_SECURITY}::test_a_network_address_needs_tls_and_a_way_to_know_callers"
    ],
    "3 with TLS, but without tokens and client certificates: exit code 78": [
        f"{_SECURITY}::test_a_network_address_needs_tls_and_a_way_to_know_callers"
    ],
    "4 [::] and the name of the machine: the same": [
        f"{_SECURITY}::test_a_network_address_needs_tls_and_a_way_to_know_callers"
    ],
    "5 a call without a token: UNAUTHENTICATED; wrong scope: PERMISSION_DENIED": [
        f"{_SECURITY}::test_a_call_needs_a_token_and_health_does_not",
        f"{_SECURITY}::test_each_scope_does_what_it_is_for",
        "unit/rpc/test_access.py::test_every_call_of_every_service_has_a_scope_and_no_other_has",
    ],
    "6 a token file of mode 0644 is refused": [
        f"{_SECURITY}::test_a_token_file_that_others_can_read_is_refused"
    ],
    "7 no token in the log at level debug": [f"{_SECURITY}::test_no_token_is_in_the_log_at_level_debug"],
    "8 TLS 1.1 is refused": [f"{_SECURITY}::test_tls_1_2_and_not_1_1"],
    "9 a client certificate of another authority is refused": [
        f"{_SECURITY}::test_client_certificates_and_a_renewal_without_restart"
    ],
    "10 socket 0660, its folder 0750": [f"{_SECURITY}::test_the_socket_is_for_us_and_our_group"],
    "11 reflection is unknown": [f"{_SECURITY}::test_the_api_does_not_describe_itself_unless_asked_to"],
    "12 a byte more than max_receive_mib: RESOURCE_EXHAUSTED": [
        f"{_SECURITY}::test_messages_and_metadata_beyond_the_limits_are_refused"
    ],
    "13 the 129th stream waits, others live": [f"{_SECURITY}::test_the_129th_stream_waits_and_others_live"],
    "14 a flood of pings: GOAWAY": [f"{_SECURITY}::test_who_floods_with_pings_is_sent_away"],
    "15 Host evil.example": [_PAGES],
    "16 POST from another origin": [_PAGES],
    "17 GET changes nothing": [_PAGES],
    "18 a name with markup is shown as text": [
        "unit/segmentctl/test_markup.py::test_names_are_text_whatever_they_look_like"
    ],
    "19 hostile model packages: refused with a reason, a good one taken, no file, RSS < +200 MB": [
        "unit/models/test_hostile_packages.py::test_a_hostile_package_is_refused",
        _IMPORTS,
    ],
    "20 no process but our own workers during imports": [_IMPORTS],
    "21 no connection to anybody during imports": [_IMPORTS],
    "22 exposure of the service": [
        "contract/test_systemd.py::test_systemd_accepts_the_service_and_finds_it_shut_in"
    ],
    "hostile clients beside a good one": [
        "e2e/test_hostile_clients.py::test_a_good_client_does_not_notice_hostile_ones",
        "e2e/test_hostile_clients.py::test_connections_are_counted_and_silent_ones_ended",
    ],
}


def test_every_item_has_tests_that_are_there(repository: Path) -> None:
    assert [item.split()[0] for item in CHECKLIST][:22] == [str(number) for number in range(1, 23)]
    for item, tests in CHECKLIST.items():
        assert tests, item
        for test in tests:
            file, _, name = test.partition("::")
            text = (repository / "tests" / file).read_text()
            assert re.search(rf"^(async )?def {name}\(", text, re.MULTILINE), (item, test)
