from contacts_api.problems import Invalid, NotFound, Problem, documented


class Rationed(Problem):
    status, code, title = 429, "rationed", "There is no more for today"

    def __init__(self, hours: int) -> None:
        super().__init__(f"Come back in {hours} hours.", headers={"Retry-After": str(hours * 3600)})


class OddName(Invalid):
    code, title = "odd_name", "The name is odd"
    detail = "Take an even one."
    loc = ("body", "name")


def test_a_problem_that_needs_arguments_is_documented_without_them() -> None:
    (example,) = documented(Rationed)[429]["content"]["application/problem+json"]["examples"].values()

    assert example["value"]["detail"] == "There is no more for today."


def test_problems_with_the_same_status_are_documented_together() -> None:
    responses = documented(OddName, onto=documented(NotFound, Invalid))

    assert responses.keys() == {404, 422}
    assert responses[422]["content"]["application/problem+json"]["examples"].keys() == {"validation_error", "odd_name"}


def test_a_problem_with_one_field_names_the_field() -> None:
    errors = [{"loc": ["body", "name"], "code": "odd_name", "detail": "Take an even one."}]

    assert OddName().body["errors"] == OddName.details()["errors"] == errors
