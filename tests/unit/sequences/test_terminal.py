"""Terminal lines of several lives and writers become one log."""

from matyan.sequences.terminal import Terminal, begin_life, place


def test_lines_keep_the_numbers_of_the_client_in_the_first_life() -> None:
    terminal = Terminal()
    begin_life(terminal, "a")

    assert [place(terminal, "a", step) for step in (0, 1, 1, 2, 5)] == [0, 1, 1, 2, 5]


def test_a_new_life_goes_on_behind_the_last_line() -> None:
    terminal = Terminal()
    begin_life(terminal, "a")
    place(terminal, "a", 9)

    begin_life(terminal, "b")

    assert [place(terminal, "b", step) for step in (0, 1)] == [10, 11]


def test_two_writers_at_once_overwrite_nothing_of_each_other() -> None:
    terminal = Terminal()
    begin_life(terminal, "a")
    begin_life(terminal, "b")

    lines = [place(terminal, writer, step) for writer, step in [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("b", 1)]]

    assert lines == [0, 1, 2, 3, 3]


def test_a_reconnected_client_continues_where_it_was() -> None:
    terminal = Terminal()
    begin_life(terminal, "a")
    place(terminal, "a", 4)

    assert place(terminal, "a after reconnect", 4) == 4
    assert place(terminal, "a after reconnect", 5) == 5


def test_writers_beyond_the_bound_are_forgotten_oldest_first() -> None:
    terminal = Terminal()
    for number in range(100):
        begin_life(terminal, str(number))
        place(terminal, str(number), 0)

    assert len(terminal.writers) == 16
    assert terminal.line_next == 100


def test_a_reconnected_writer_of_two_continues_its_own_lines() -> None:
    terminal = Terminal()
    begin_life(terminal, "a")
    place(terminal, "a", 9)
    begin_life(terminal, "b")
    place(terminal, "b", 99)

    assert place(terminal, "a again", 10) == 110
    assert place(terminal, "b again", 99) == 109
    assert place(terminal, "who?", 50) == 111
