"""The API key that a request comes with."""

from fastapi import APIRouter

from api.authentication import GuardedRoute
from api.dependencies import ReaderDep
from api.schemas import KeyPublic
from registry.keys import Scope

router = APIRouter(tags=["keys"], route_class=GuardedRoute)


@router.get("/key")
def read_key(caller: ReaderDep) -> KeyPublic:
    """Tell whose key this is, and what it may do."""
    return KeyPublic(name=caller.name, scopes=[scope for scope in Scope if caller.may(scope)])
