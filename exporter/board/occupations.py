"""Roles, cities and companies of the friendly synthetic postings."""

from __future__ import annotations

from typing import NamedTuple


class Role(NamedTuple):
    """A common occupation, and what its postings say."""

    title: str
    category: str
    team: str
    pay: int
    """Usual salary in the United States, in USD a year."""
    skills: tuple[str, ...]
    work: str
    """Its work, as the words after "you will"."""
    ladder: bool = True
    """True if a grade such as Senior can precede the title."""
    weight: int = 1


_SQL = ("SQL", "Python", "Airflow", "dbt", "Spark", "Snowflake")
_WEB = ("TypeScript", "React", "CSS", "Next.js", "GraphQL", "Accessibility")
_CODE = ("Python", "Go", "Java", "PostgreSQL", "Docker", "Kubernetes")
_OPS = ("Terraform", "AWS", "Kubernetes", "Linux", "Prometheus", "Python")
_SALES = ("Salesforce", "Negotiation", "Forecasting", "Prospecting", "Presentations")
_OFFICE = ("Excel", "Reporting", "Budgeting", "Communication", "Process improvement")
_CARE = ("Patient care", "Triage", "Electronic health records", "Communication", "Teamwork")
_SITE = ("AutoCAD", "Site supervision", "Cost estimates", "Safety", "Project planning")
# fmt: off
ROLES = (
    Role("Software Engineer", "Engineering", "Platform", 150, _CODE,
         "build and run services that customers depend on", weight=6),
    Role("Data Engineer", "Data", "Data Platform", 145, _SQL,
         "build the pipelines that feed every report and model", weight=5),
    Role("Backend Engineer", "Engineering", "Core Services", 150, _CODE,
         "design APIs and the storage behind them", weight=3),
    Role("Frontend Engineer", "Engineering", "Web", 140, _WEB,
         "build the pages that customers use every day", weight=3),
    Role("Full Stack Engineer", "Engineering", "Product", 142, (*_WEB[:3], *_CODE[:3]),
         "ship features from the database to the browser", weight=3),
    Role("DevOps Engineer", "Engineering", "Infrastructure", 148, _OPS,
         "keep deployments fast, safe and boring", weight=2),
    Role("Site Reliability Engineer", "Engineering", "Infrastructure", 160, _OPS,
         "keep our services within their objectives"),
    Role("Machine Learning Engineer", "Data", "Machine Learning", 170,
         ("Python", "PyTorch", "MLflow", "SQL", "Docker"),
         "take models from a notebook to production", weight=2),
    Role("Data Scientist", "Data", "Insights", 145,
         ("Python", "SQL", "Statistics", "Experiment design", "pandas"),
         "answer product questions with experiments and models", weight=3),
    Role("Data Analyst", "Data", "Insights", 95,
         ("SQL", "Excel", "Tableau", "Python", "Statistics"),
         "turn raw numbers into decisions", weight=3),
    Role("Business Analyst", "Operations", "Planning", 92, _OFFICE,
         "write down how the business works and how it should", weight=2),
    Role("Security Engineer", "Engineering", "Security", 158,
         ("Threat modeling", "AWS", "Python", "Incident response", "Linux"),
         "find weaknesses before others do"),
    Role("QA Engineer", "Engineering", "Quality", 105,
         ("Playwright", "Python", "Test planning", "CI", "SQL"),
         "make releases safe with tests that people trust"),
    Role("Mobile Developer", "Engineering", "Mobile", 140,
         ("Swift", "Kotlin", "REST", "CI", "Accessibility"),
         "build our apps for iOS and Android"),
    Role("Product Manager", "Product", "Product", 140,
         ("Roadmaps", "Customer interviews", "SQL", "Prioritization", "Writing"),
         "decide with customers what to build next", weight=3),
    Role("Product Designer", "Design", "Design", 125,
         ("Figma", "Prototyping", "User research", "Design systems", "Writing"),
         "design flows that need no manual", weight=2),
    Role("Engineering Manager", "Engineering", "Platform", 185,
         ("Leadership", "Hiring", "Planning", "Coaching", "Architecture"),
         "lead a team of six to eight engineers", ladder=False),
    Role("Head of Data", "Data", "Data Platform", 210,
         ("Leadership", "Strategy", "SQL", "Hiring", "Governance"),
         "set the direction of all work with data", ladder=False),
    Role("Project Manager", "Operations", "Delivery", 105,
         ("Planning", "Risk management", "Reporting", "Jira", "Communication"),
         "bring projects home in time and within budget", weight=2),
    Role("Account Executive", "Sales", "Sales", 95, _SALES,
         "win new customers in your region", weight=2),
    Role("Sales Manager", "Sales", "Sales", 115, _SALES,
         "lead a regional sales team to its targets", ladder=False),
    Role("Customer Success Manager", "Customer Success", "Customers", 90,
         ("Onboarding", "Salesforce", "Presentations", "Renewals", "Reporting"),
         "help customers to get what they paid for", weight=2),
    Role("Customer Support Specialist", "Customer Success", "Support", 55,
         ("Zendesk", "Writing", "Troubleshooting", "Patience", "Teamwork"),
         "answer questions by chat, phone and mail", ladder=False),
    Role("Marketing Manager", "Marketing", "Growth", 100,
         ("SEO", "Analytics", "Copywriting", "Budgeting", "Planning"),
         "plan campaigns and measure what they bring"),
    Role("Technical Writer", "Marketing", "Documentation", 92,
         ("Writing", "Markdown", "API documentation", "Editing", "Git"),
         "explain our products to those who use them"),
    Role("Accountant", "Finance", "Finance", 75,
         ("Excel", "GAAP", "Reconciliation", "Reporting", "ERP"),
         "close the books every month, without surprises"),
    Role("Financial Analyst", "Finance", "Finance", 85,
         ("Excel", "Modeling", "SQL", "Budgeting", "Presentations"),
         "plan and explain revenue and cost"),
    Role("HR Manager", "People", "People", 95,
         ("Employment law", "Coaching", "Onboarding", "Payroll", "Communication"),
         "make the company a good place to work", ladder=False),
    Role("Recruiter", "People", "People", 75,
         ("Sourcing", "Interviewing", "Communication", "Planning", "Reporting"),
         "find the people that our teams need"),
    Role("Registered Nurse", "Nursing", "Clinic", 88, _CARE,
         "care for patients in a team of twelve", weight=2, ladder=False),
    Role("Civil Engineer", "Construction", "Projects", 92, _SITE,
         "plan roads, bridges and foundations"),
    Role("Mechanical Engineer", "Engineering", "Hardware", 98,
         ("SolidWorks", "FEA", "Prototyping", "Tolerancing", "Testing"),
         "design parts that last"),
    Role("Electrical Engineer", "Engineering", "Hardware", 102,
         ("Altium", "Circuit design", "Testing", "Firmware", "Safety"),
         "design boards from schematic to production"),
    Role("Operations Manager", "Operations", "Operations", 98, _OFFICE,
         "keep three sites running smoothly", ladder=False),
    Role("Warehouse Supervisor", "Logistics", "Warehouse", 62,
         ("Inventory", "Safety", "Forklift", "Scheduling", "Teamwork"),
         "lead a shift of twenty people", ladder=False),
)
# fmt: on
GRADES = (
    # prefix, experience level, minimum and maximum years, share of the usual salary in percent
    ("", "Mid", 2, 5, 100),
    ("", "Mid", 3, 6, 105),
    ("Senior ", "Senior", 5, 9, 130),
    ("Senior ", "Senior", 6, 10, 135),
    ("Junior ", "Junior", 1, 2, 75),
    ("Lead ", "Senior", 8, 12, 150),
    ("Staff ", "Senior", 9, 14, 165),
    ("", "Entry", 0, 1, 70),
)


class City(NamedTuple):
    """A place of work, and how its salaries compare."""

    city: str
    region: str
    country: str
    longitude: float
    latitude: float
    currency: str
    pay: int
    """Salaries in this currency, in percent of those in USD."""
    weight: int = 1


CITIES = (
    City("San Francisco", "California", "United States", -122.4194, 37.7749, "USD", 115, 4),
    City("New York", "New York", "United States", -74.006, 40.7128, "USD", 112, 5),
    City("Seattle", "Washington", "United States", -122.3321, 47.6062, "USD", 110, 3),
    City("Austin", "Texas", "United States", -97.7431, 30.2672, "USD", 98, 3),
    City("Boston", "Massachusetts", "United States", -71.0589, 42.3601, "USD", 106, 2),
    City("Chicago", "Illinois", "United States", -87.6298, 41.8781, "USD", 98, 3),
    City("Denver", "Colorado", "United States", -104.9903, 39.7392, "USD", 97, 2),
    City("Atlanta", "Georgia", "United States", -84.388, 33.749, "USD", 93, 2),
    City("Los Angeles", "California", "United States", -118.2437, 34.0522, "USD", 106, 3),
    City("Oakland", "California", "United States", -122.2712, 37.8044, "USD", 108),
    City("Richmond", "Virginia", "United States", -77.436, 37.5407, "USD", 90),
    City("Toronto", "Ontario", "Canada", -79.3832, 43.6532, "CAD", 95, 2),
    City("London", "England", "United Kingdom", -0.1276, 51.5072, "GBP", 60, 4),
    City("Manchester", "England", "United Kingdom", -2.2426, 53.4808, "GBP", 50),
    City("Dublin", "Leinster", "Ireland", -6.2603, 53.3498, "EUR", 62),
    City("Berlin", "Berlin", "Germany", 13.405, 52.52, "EUR", 58, 3),
    City("Munich", "Bavaria", "Germany", 11.582, 48.1351, "EUR", 63, 2),
    City("Hamburg", "Hamburg", "Germany", 9.9937, 53.5511, "EUR", 57),
    City("Amsterdam", "North Holland", "Netherlands", 4.9041, 52.3676, "EUR", 60, 2),
    City("Paris", "Ile-de-France", "France", 2.3522, 48.8566, "EUR", 54, 2),
    City("Madrid", "Madrid", "Spain", -3.7038, 40.4168, "EUR", 44),
    City("Zurich", "Zurich", "Switzerland", 8.5417, 47.3769, "CHF", 88),
    City("Singapore", "Singapore", "Singapore", 103.8198, 1.3521, "SGD", 100),
    City("Sydney", "New South Wales", "Australia", 151.2093, -33.8688, "AUD", 105),
    City("Bengaluru", "Karnataka", "India", 77.5946, 12.9716, "INR", 1700, 2),
)
NAMES = (
    *("Northwind", "Blue Harbor", "Kestrel", "Silverline", "Tamarind", "Oakridge", "Brightwater"),
    *("Evergreen", "Summit", "Lighthouse", "Copperfield", "Redwood", "Meridian", "Juniper"),
    *("Fairview", "Granite", "Harvest", "Ironwood", "Lakeside", "Maplewood", "Nimbus", "Orchard"),
    *("Pinnacle", "Riverbend", "Starboard", "Trailhead", "Vantage", "Westbrook", "Cedar Point"),
    "Beacon Hill",
)
KINDS = (
    # kind, industry, sub-industry, what the company makes
    ("Labs", "Software", "Developer Tools", "tools for software teams"),
    ("Software", "Software", "Business Software", "planning software for mid-sized companies"),
    ("Health", "Healthcare", "Hospitals", "clinics and software for patients"),
    ("Logistics", "Logistics", "Freight", "freight and warehouse services"),
    ("Energy", "Energy", "Wind Power", "wind and solar power plants"),
    ("Bank", "Finance", "Payments", "accounts and payments for small businesses"),
    ("Foods", "Food", "Food Production", "food for schools and hospitals"),
    ("Design", "Design", "Architecture", "buildings and interiors"),
)
SIZES = ((1, 10), (11, 50), (51, 200), (201, 500), (501, 1000), (1001, 5000))
