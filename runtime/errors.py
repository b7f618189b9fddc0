"""The one exception for everything a user can mend."""


class InputError(Exception):
    """Bad input: what is wrong, where, and the way out.

    Parameters
    ----------
    problem : one sentence that names the file and the place (row, column, key, time).
    cure : one sentence that tells what to do about it.
    """

    def __init__(self, problem: str, cure: str):
        self.problem = problem
        self.cure = cure
        super().__init__(f"{problem}\n{cure}")

    def lines(self) -> list[str]:
        """At most three lines for the screen."""
        problem = " ".join(self.problem.split())
        cure = " ".join(self.cure.split())
        return [f"error: {problem}", f"cure:  {cure}"]
