//! The Role that podbeat needs in Kubernetes, as YAML for `kubectl apply`.

/// Who a caller is, according to the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    /// The service account of a pod.
    ServiceAccount {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// Any other user, such as a person with a kubeconfig.
    User(String),
}

impl Account {
    /// Parses the user name that the API server gives to a caller.
    #[must_use]
    pub fn named(user: &str) -> Self {
        let account = user
            .strip_prefix("system:serviceaccount:")
            .and_then(service_account);
        account.unwrap_or_else(|| Self::User(user.to_owned()))
    }

    /// Finds the service account in the message of a 403: `User
    /// "system:serviceaccount:NAMESPACE:NAME" cannot …`.
    #[must_use]
    pub fn forbidden(message: &str) -> Option<Self> {
        let (_, rest) = message.split_once("\"system:serviceaccount:")?;
        let (user, _) = rest.split_once('"')?;
        service_account(user)
    }
}

impl std::fmt::Display for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ServiceAccount { namespace, name } => {
                write!(f, "service account {namespace}/{name}")
            }
            Self::User(name) => write!(f, "user {name}"),
        }
    }
}

fn service_account(user: &str) -> Option<Account> {
    let (namespace, name) = user.split_once(':')?;
    (is_name(namespace) && is_name(name)).then(|| Account::ServiceAccount {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.')
        })
}

/// Returns a text as one YAML value. A text that is not a name may contain any characters, so it
/// becomes a JSON string, which is also a YAML string.
fn scalar(text: &str) -> String {
    match is_name(text) {
        true => text.to_owned(),
        false => serde_json::Value::from(text).to_string(),
    }
}

/// The Role and RoleBinding that allow an account to see the pods of a namespace.
#[must_use]
pub fn missing(namespace: &str, account: &Account) -> String {
    let subject = match account {
        Account::ServiceAccount { namespace, name } => {
            let (name, namespace) = (scalar(name), scalar(namespace));
            format!("{{kind: ServiceAccount, name: {name}, namespace: {namespace}}}")
        }
        Account::User(name) => {
            let name = serde_json::Value::from(name.as_str());
            format!("{{kind: User, apiGroup: rbac.authorization.k8s.io, name: {name}}}")
        }
    };
    let namespace = scalar(namespace);
    format!(
        "apiVersion: rbac.authorization.k8s.io/v1\n\
         kind: Role\n\
         metadata: {{name: podbeat, namespace: {namespace}}}\n\
         rules:\n\
         - {{apiGroups: [\"\"], resources: [pods], verbs: [get, list, watch]}}\n\
         ---\n\
         apiVersion: rbac.authorization.k8s.io/v1\n\
         kind: RoleBinding\n\
         metadata: {{name: podbeat, namespace: {namespace}}}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: podbeat}}\n\
         subjects:\n\
         - {subject}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_what_the_api_server_calls_it() {
        let of_a_pod = Account::named("system:serviceaccount:team-a:tasks");
        assert_eq!(of_a_pod.to_string(), "service account team-a/tasks");
        for odd in [
            "jane",
            "system:serviceaccount:a",
            "system:serviceaccount:a: b}",
            "",
        ] {
            assert_eq!(Account::named(odd), Account::User(odd.to_owned()), "{odd}");
        }
    }

    #[test]
    fn a_persons_name_stays_one_string_of_the_yaml() {
        let role = missing("n", &Account::named("jane\"}\n- {kind: Group"));
        assert!(
            role.ends_with(
                "- {kind: User, apiGroup: rbac.authorization.k8s.io, name: \"jane\\\"}\\n- {kind: Group\"}\n"
            ),
            "{role}"
        );
    }
}
